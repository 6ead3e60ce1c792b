//! End-to-end tests: one module per capability, one binary so that it links once.

mod bad_input;
mod capture;
mod connecting;
mod crash;
mod crowd;
mod dns;
mod ending;
mod external_proxy;
mod harness_itself;
mod idle;
mod impostor;
mod inbound;
mod iptables;
mod limits;
mod one_agent;
mod original_dst;
mod peers;
mod pods_come_and_go;
mod redirectable;
mod reload;
mod shutdown;
mod stage;
mod udp;
mod untouched;
mod verbs;
mod volume;
