//! A question and its reply, as they may come over the network: the first two bytes say how long the
//! question is, the third how old the reply.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use mesh_agent::proxy::dns::exchange_property::check;

fuzz_target!(|input: &[u8]| {
    let [high, low, age, messages @ ..] = input else {
        return;
    };
    let length = usize::from(u16::from_be_bytes([*high, *low])).min(messages.len());
    let (question, reply) = messages.split_at(length);
    check(question, reply, Duration::from_secs(u64::from(*age)));
    // Most replies are taken only if they repeat the question.
    let mut repeated = question.to_vec();
    if let Some(flags) = repeated.get_mut(2) {
        *flags |= 0x80;
    }
    repeated.extend(reply);
    check(question, &repeated, Duration::from_secs(u64::from(*age)));
});
