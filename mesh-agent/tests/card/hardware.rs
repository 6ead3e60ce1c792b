//! A card's stamps, read and converted by the library, are where the kernel's stamps of the same packets
//! are. Two emulated cards are on one wire; the clock of each is set to TAI, as `ptp4l` would set it, so that
//! a stamp that was not converted is 37 seconds off.

use std::{
    env,
    fs::File,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::fd::AsFd,
    path::Path,
    process::Command,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use mesh_agent::{
    config::HardwareStamps,
    latency::{
        HardwareNanos, Nanos,
        control_messages::{Moment, received, transmitted},
        hardware::{Clocks, Interface, Switched},
    },
};
use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Protocol, Socket, Type};

use crate::raw::{ask_for_stamps, control_messages};

/// The first card's address, and that of the second, which is in a network namespace of its own.
const NEAR: &str = "10.245.0.1";
const FAR: &str = "10.245.0.2";
const NETNS: &str = "mesh-card-test";

/// How far apart a packet's two stamps may be: the driver's and the card's moment, on an emulated machine
/// whose threads share two cores with others.
const APART: u64 = 20_000_000;
const BOUND: Duration = Duration::from_secs(10);
const TAI: u64 = 37_000_000_000;

/// The interfaces that may be set.
fn cards() -> Option<[String; 2]> {
    let Ok(names) = env::var("MESH_TEST_CARDS") else {
        eprintln!("skipped: needs network cards to set; `cargo xtask vm --card` has two");
        return None;
    };
    let (first, second) = names.split_once(',').expect("two names");
    Some([first.to_owned(), second.to_owned()])
}

fn run(program: impl AsRef<Path>, arguments: &[&str]) {
    let output = Command::new(program.as_ref()).args(arguments).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

fn ip(commands: &str) {
    for command in commands.lines() {
        let words: Vec<&str> = command.split_whitespace().collect();
        run("ip", &words);
    }
}

/// Sets what the card stamps, as another tool would.
fn set(card: &str, transmit: &str, receive: &str) {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let script = workspace.join("tests/programs/hardware_setting.py");
    run(
        "python3",
        &[&*script.to_string_lossy(), card, transmit, receive],
    );
}

/// Sets a card's clock to TAI.
fn set_to_tai(clock: &str) {
    let script = "import os, sys, time\n\
                  clock = ~os.open(sys.argv[1], os.O_RDWR) << 3 | 3\n\
                  time.clock_settime_ns(clock, time.time_ns() + int(sys.argv[2]))";
    run("python3", &["-c", script, clock, &TAI.to_string()]);
}

/// The clocks of the cards that are on now, with a reading before and one after.
fn clocks() -> Clocks {
    let clocks = Clocks::of(&Interface::all().unwrap());
    assert!(!clocks.is_empty(), "no card is on");
    clocks
}

fn index_of(card: &str) -> u32 {
    let interfaces = Interface::all().unwrap();
    let interface = interfaces.iter().find(|known| known.name == card);
    interface.unwrap().index
}

/// How far the card's stamp is from the kernel's, nanoseconds: within what the conversion may be wrong by
/// and what may be between the two.
fn assert_same_moment(clocks: &Clocks, interface: u32, hardware: HardwareNanos, software: Nanos) {
    let clock = clocks.of_interface(interface).unwrap();
    let converted = clock.to_system(hardware).expect("the relation is known");
    // Only one clock is near.
    assert_eq!(clocks.to_system(hardware, None), Some(converted));
    let apart = converted.time.0.abs_diff(software.0);
    eprintln!(
        "{}: card and kernel {apart} ns apart, conversion good to {} ns",
        clock.path(),
        converted.uncertainty
    );
    assert!(apart <= converted.uncertainty + APART, "{converted:?}");
    assert!(converted.uncertainty < APART, "{converted:?}");
    assert!(hardware.0.abs_diff(software.0) > TAI / 2);
}

/// A server on the second card.
struct Peer {
    server: JoinHandle<()>,
}

impl Peer {
    fn start(cards: &[String; 2]) -> Self {
        let [near, far] = cards;
        ip(&format!(
            "netns add {NETNS}\n\
             link set {far} netns {NETNS}\n\
             addr add {NEAR}/24 dev {near}\n\
             link set {near} up\n\
             -n {NETNS} addr add {FAR}/24 dev {far}\n\
             -n {NETNS} link set {far} up"
        ));
        let server = thread::spawn(|| {
            let netns = File::open(format!("/run/netns/{NETNS}")).unwrap();
            setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
            let listener = TcpListener::bind((FAR, 7)).unwrap();
            let (mut connection, _) = listener.accept().unwrap();
            let mut buffer = [0; 64];
            while let Ok(length @ 1..) = connection.read(&mut buffer) {
                connection.write_all(&buffer[..length]).unwrap();
            }
        });
        Self { server }
    }

    fn connect() -> TcpStream {
        let start = Instant::now();
        loop {
            // The link takes a moment to come up, and so does the server.
            match TcpStream::connect((FAR, 7)) {
                Ok(connection) => return connection,
                Err(error) => assert!(start.elapsed() < BOUND, "{error}"),
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn stop(self, near: &str) {
        self.server.join().unwrap();
        // The card goes back to where it was.
        ip(&format!("netns del {NETNS}\naddr flush dev {near}"));
    }
}

/// The next message with control messages.
fn next(socket: &impl AsFd, flags: libc::c_int) -> Vec<u8> {
    let start = Instant::now();
    loop {
        if let Some(control) = control_messages(socket, flags).unwrap() {
            return control;
        }
        assert!(start.elapsed() < BOUND, "no stamp came");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn sent_segments_stamps_by_card_and_kernel_are_one_moment() {
    let Some(cards) = cards() else { return };
    let near = &cards[0];
    let peer = Peer::start(&cards);
    let switched = Switched::on(HardwareStamps::Auto);
    set_to_tai("/dev/ptp0");
    let clocks = clocks();
    let interface = index_of(near);
    let mut connection = Peer::connect();
    ask_for_stamps(&connection).unwrap();
    for number in 0..6_u32 {
        connection.write_all(b"ping").unwrap();
        connection.read_exact(&mut [0; 4]).unwrap();
        let (mut software, mut hardware) = (None, None);
        while software.is_none() || hardware.is_none() {
            let stamp = transmitted(&next(&connection, libc::MSG_ERRQUEUE)).unwrap();
            assert_eq!(stamp.moment, Moment::Sent);
            // That of the last of its bytes.
            assert_eq!(stamp.key, 4 * number + 3);
            software = software.or(stamp.stamps.software);
            hardware = hardware.or(stamp.stamps.hardware);
        }
        assert_same_moment(&clocks, interface, hardware.unwrap(), software.unwrap());
        thread::sleep(Duration::from_millis(300));
        clocks.refresh();
    }
    drop(connection);
    drop(switched);
    peer.stop(near);
}

/// The card stamps none but PTP's of the frames that it receives.
#[test]
fn a_received_frame_s_stamps_by_card_and_kernel_are_one_moment() {
    const PTP: u16 = 0x88f7;
    let Some([near, far]) = cards() else { return };
    ip(&format!("link set {near} up\nlink set {far} up"));
    set(&far, "1", "12");
    set_to_tai("/dev/ptp1");
    let clocks = clocks();
    let interface = index_of(&far);
    let protocol = Protocol::from(i32::from(PTP.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).unwrap();
    ask_for_stamps(&socket).unwrap();
    // A Sync message of version 2, to everybody.
    let script = "import socket, sys\n\
                  frame = bytes([255] * 6 + [2, 0, 0, 0, 0, 1, 0x88, 0xf7, 0, 2, 0, 44]) + bytes(60)\n\
                  sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\n\
                  sender.bind((sys.argv[1], 0))\n\
                  sender.send(frame)";
    let start = Instant::now();
    let control = loop {
        // None arrives before the link is up.
        run("python3", &["-c", script, &near]);
        thread::sleep(Duration::from_millis(200));
        if let Some(control) = control_messages(&socket, 0).unwrap() {
            break control;
        }
        assert!(start.elapsed() < BOUND, "no frame came");
    };
    let stamp = received(&control).unwrap();
    let packet = stamp.packet.unwrap();
    assert_eq!(packet.interface, interface);
    assert_eq!(packet.length, 78);
    let (hardware, software) = (stamp.stamps.hardware, stamp.stamps.software);
    assert_same_moment(&clocks, interface, hardware.unwrap(), software.unwrap());
    set(&far, "0", "0");
}
