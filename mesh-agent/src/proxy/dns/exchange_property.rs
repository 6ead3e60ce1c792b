//! What must hold whatever comes over the network; put to the test by proptest and by the fuzz target.

use std::{net::SocketAddr, time::Duration};

use super::{
    answer::{Answer, server_failure},
    query::Query,
};

/// Takes `question` for what an app sent and `reply` for what its server said.
///
/// # Panics
/// If the app would be given another's answer, or one that is not as long as it may be.
#[allow(clippy::missing_panics_doc, reason = "that is what it is for")]
pub fn check(question: &[u8], reply: &[u8], age: Duration) {
    let server = SocketAddr::from(([10, 0, 0, 1], 53));
    let _reply_as_question = Query::parse(reply, server);
    let Some(query) = Query::parse(question, server) else {
        // Passed on as it is.
        return;
    };
    assert!(query.is_answered_by(&server_failure(&query)));
    if !query.is_answered_by(reply) {
        return;
    }
    let answer = Answer::new(reply.to_vec());
    let _lifetime = answer.lifetime();
    let datagram = answer.to_datagram(&query, age);
    assert!(datagram.len() <= query.limit().max(question.len()));
    for given in [answer.to(&query, age), datagram] {
        assert!(query.is_answered_by(&given));
        assert_eq!(given[..2], query.id());
    }
}
