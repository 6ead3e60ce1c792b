//! Messages in and out, against a decoder that somebody else wrote.

use std::{net::SocketAddr, time::Duration};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query as Question, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, SOA},
    },
};
use proptest::prelude::*;

use super::{
    Hosts,
    answer::{Answer, server_failure},
    exchange_property,
    query::Query,
};
use crate::config::Destination;

const SERVER: &str = "10.0.0.1:53";

fn server() -> SocketAddr {
    SERVER.parse().unwrap()
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn asked(text: &str, id: u16, edns: Option<u16>) -> Query {
    Query::parse(&message(text, id, edns), server()).unwrap()
}

fn message(text: &str, id: u16, edns: Option<u16>) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Question::query(name(text), RecordType::A));
    if let Some(limit) = edns {
        let mut edns = Edns::new();
        edns.set_max_payload(limit);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

/// An answer with these TTLs.
fn answered(query: &Query, ttls: &[u32]) -> Message {
    let mut message = Message::from_vec(query.bytes()).unwrap().into_response();
    for (number, ttl) in ttls.iter().enumerate() {
        let data = RData::A(A::new(192, 0, 2, number as u8));
        let owner = message.queries[0].name().clone();
        message.add_answer(Record::from_rdata(owner, *ttl, data));
    }
    message
}

#[test]
fn an_answer_that_was_kept_has_the_new_id_the_new_capitals_and_what_is_left_of_its_ttls() {
    let first = asked("who.test.", 1, None);
    let answer = Answer::new(answered(&first, &[300, 60]).to_vec().unwrap());
    assert_eq!(answer.lifetime(), Duration::from_mins(1));
    let second = asked("WHO.tESt.", 2, None);
    assert_eq!(first.key(), second.key());
    let bytes = answer.to_datagram(&second, Duration::from_secs(45));
    assert!(second.is_answered_by(&bytes));
    let heard = Message::from_vec(&bytes).unwrap();
    assert_eq!(heard.metadata.id, 2);
    assert_eq!(heard.queries[0].name().to_ascii(), "WHO.tESt.");
    let ttls: Vec<u32> = heard.answers.iter().map(|record| record.ttl).collect();
    assert_eq!(ttls, [255, 15]);
}

#[test]
fn only_queries_with_one_answer_for_all_share_it() {
    let plain = asked("who.test.", 1, None);
    assert_ne!(plain.key(), asked("who.test.", 1, Some(1232)).key());
    assert_ne!(plain.key(), asked("whose.test.", 1, None).key());
    let elsewhere = Query::parse(plain.bytes(), "10.0.0.2:53".parse().unwrap()).unwrap();
    assert_ne!(plain.key(), elsewhere.key());
    let mut checking_disabled = plain.bytes().to_vec();
    checking_disabled[3] |= 0x10;
    let checking_disabled = Query::parse(&checking_disabled, server()).unwrap();
    assert_ne!(plain.key(), checking_disabled.key());
    // The size that a client takes does not change what is true.
    assert_eq!(
        asked("who.test.", 1, Some(1232)).key(),
        asked("who.test.", 1, Some(4096)).key()
    );
}

#[test]
fn negative_answers_are_kept_as_their_soa_says_and_failures_not_at_all() {
    let query = asked("nothing.test.", 1, None);
    let mut negative = answered(&query, &[]);
    negative.metadata.response_code = ResponseCode::NXDomain;
    let lifetime = |message: &Message| Answer::new(message.to_vec().unwrap()).lifetime();
    assert_eq!(lifetime(&negative), Duration::ZERO);
    let soa = SOA::new(name("ns.test."), name("hostmaster.test."), 1, 2, 3, 4, 30);
    negative.add_authority(Record::from_rdata(name("test."), 600, RData::SOA(soa)));
    assert_eq!(lifetime(&negative), Duration::from_secs(30));
    negative.metadata.response_code = ResponseCode::ServFail;
    assert_eq!(lifetime(&negative), Duration::ZERO);
    let mut truncated = answered(&query, &[300]);
    truncated.metadata.truncation = true;
    assert_eq!(lifetime(&truncated), Duration::ZERO);
}

#[test]
fn what_does_not_fit_the_datagram_is_left_out_and_said_to_be() {
    for (edns, limit) in [(None, 512), (Some(700), 700)] {
        let query = asked("who.test.", 7, edns);
        let answer = Answer::new(answered(&query, &[60; 100]).to_vec().unwrap());
        let bytes = answer.to_datagram(&query, Duration::ZERO);
        assert!(bytes.len() <= limit);
        let heard = Message::from_vec(&bytes).unwrap();
        assert!(heard.metadata.truncation && heard.answers.is_empty());
        assert_eq!(
            (heard.metadata.id, heard.edns.is_some()),
            (7, edns.is_some())
        );
        // Over TCP it is whole.
        let whole = Message::from_vec(&answer.to(&query, Duration::ZERO)).unwrap();
        assert_eq!(whole.answers.len(), 100);
    }
}

#[test]
fn a_failure_repeats_the_question() {
    let query = asked("who.test.", 9, Some(1232));
    let heard = Message::from_vec(&server_failure(&query)).unwrap();
    assert_eq!(heard.metadata.response_code, ResponseCode::ServFail);
    assert_eq!((heard.metadata.id, heard.queries.len()), (9, 1));
    assert!(query.is_answered_by(&server_failure(&query)));
}

#[test]
fn transfers_updates_and_several_questions_are_no_plain_queries() {
    let plain = message("who.test.", 1, None);
    let end = plain.len();
    let changed = |at: usize, byte: u8| {
        let mut bytes = plain.clone();
        bytes[at] = byte;
        Query::parse(&bytes, server())
    };
    assert!(Query::parse(&plain, server()).is_some());
    assert!(changed(end - 3, 252).is_none(), "AXFR");
    assert!(changed(2, 5 << 3).is_none(), "UPDATE");
    assert!(changed(2, 0x80).is_none(), "an answer");
    assert!(changed(5, 2).is_none(), "two questions");
    assert!(changed(7, 1).is_none(), "an answer in a query");
    assert!(Query::parse(&[plain.as_slice(), &[0]].concat(), server()).is_none());
}

#[test]
fn names_of_the_configuration_are_answered_in_both_families_and_with_no_other_records() {
    let destination = |hosts: &[&str], addresses: &[&str]| Destination {
        name: "a".to_owned(),
        hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        ..Destination::default()
    };
    let hosts = Hosts::of(&[
        destination(
            &["Reviews.demo", "*.deep.demo"],
            &["10.96.0.10", "fd00::10"],
        ),
        destination(&["*.a.deep.demo"], &["10.96.0.11"]),
        destination(&["nowhere.demo"], &[]),
    ]);
    let answer = |text: &str, kind: RecordType, edns: bool| {
        let mut message = Message::new(5, MessageType::Query, OpCode::Query);
        message.add_query(Question::query(name(text), kind));
        if edns {
            message.set_edns(Edns::new());
        }
        let query = Query::parse(&message.to_vec().unwrap(), server()).unwrap();
        let answer = hosts.answer(&query)?;
        assert!(query.is_answered_by(&answer));
        let heard = Message::from_vec(&answer).unwrap();
        assert_eq!(heard.edns.is_some(), edns);
        assert_eq!(heard.metadata.response_code, ResponseCode::NoError);
        Some(
            heard
                .answers
                .iter()
                .map(|record| record.data.to_string())
                .collect::<Vec<_>>(),
        )
    };
    let (a, aaaa) = (RecordType::A, RecordType::AAAA);
    assert_eq!(answer("reviews.DEMO.", a, true).unwrap(), ["10.96.0.10"]);
    assert_eq!(answer("reviews.demo.", aaaa, false).unwrap(), ["fd00::10"]);
    assert!(
        answer("reviews.demo.", RecordType::MX, true)
            .unwrap()
            .is_empty()
    );
    assert_eq!(answer("x.deep.demo.", a, true).unwrap(), ["10.96.0.10"]);
    assert_eq!(answer("x.y.deep.demo.", a, true).unwrap(), ["10.96.0.10"]);
    assert_eq!(answer("x.a.deep.demo.", a, true).unwrap(), ["10.96.0.11"]);
    for other in [
        "deep.demo.",
        "nowhere.demo.",
        "demo.",
        "xreviews.demo.",
        ".",
    ] {
        assert!(answer(other, a, true).is_none(), "{other}");
    }
    let counted = hosts.queries();
    assert!(
        counted.contains(&("reviews.demo".to_owned(), 3)),
        "{counted:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Nothing that comes over the network makes the proxy panic, or answer another's question.
    #[test]
    fn malformed_messages_do_no_harm(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        tail in prop::collection::vec(any::<u8>(), 0..40),
        age in 0..1_000_u64,
    ) {
        let query = asked("who.test.", 3, Some(1232));
        let mut bytes = answered(&query, &[60, 300]).to_vec().unwrap();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        bytes.extend(tail);
        exchange_property::check(query.bytes(), &bytes, Duration::from_secs(age));
    }

    #[test]
    fn any_bytes_at_all_do_no_harm(
        question in prop::collection::vec(any::<u8>(), 0..120),
        reply in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        exchange_property::check(&question, &reply, Duration::ZERO);
        // The same with a reply that is taken for one.
        let mut reply = reply;
        let length = reply.len().min(question.len());
        reply[..length].copy_from_slice(&question[..length]);
        if let Some(flags) = reply.get_mut(2) {
            *flags |= 0x80;
        }
        exchange_property::check(&question, &reply, Duration::ZERO);
    }
}
