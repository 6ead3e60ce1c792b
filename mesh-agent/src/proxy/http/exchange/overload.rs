//! How important a request is, and what servers that have too much to do say of that.

use std::{
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderName, HeaderValue, Response, header};

use super::Exchange;
use crate::{
    policy::{
        overload::{Answer, MOST_STANDS_FOR},
        priority::{Priority, user_priority},
    },
    proxy::{
        destinations::Endpoint,
        http::{reason::Reason, retry_mark::identity, session::Session},
        overload::{Asking, PriorityHeaders},
        protection::Refusal,
        timer::{Late, within},
    },
};

/// The header in which an agent says which requests its server lets in: those of this priority, and what is
/// more important. For the agents of callers; these keep it to themselves.
const ADMITS_UP_TO: HeaderName = HeaderName::from_static("x-mesh-admits-up-to");
/// The header in which a caller's agent says that it has kept back others like this request: how many there
/// would have been with it. For the agent of the server; that keeps it to itself.
const STANDS_FOR: HeaderName = HeaderName::from_static("x-mesh-stands-for");

/// Says in an answer of a pod's server which requests are let in there, if not all are.
pub(super) fn tell(session: &Session, headers: &mut HeaderMap) {
    if !session.is_inbound() {
        return;
    }
    let level = session.pod.servers.overload().and_then(|it| it.level());
    if let Some(level) = level
        && let Ok(level) = HeaderValue::from_str(&level.to_string())
    {
        headers.insert(ADMITS_UP_TO, level);
    }
}

/// Remembers what an answer says of that.
pub(super) fn hear(endpoint: &Endpoint, headers: &mut HeaderMap) {
    let told = headers.remove(ADMITS_UP_TO);
    let level = told.and_then(|level| Priority::parse(level.to_str().ok()?));
    endpoint.tells(level.map(Priority::ordinal), Instant::now());
}

impl Exchange<'_> {
    /// Waits until the pod's server may work on it, where that is limited.
    pub(super) async fn wait_for_turn(&mut self) -> Result<(), Refusal> {
        let Some(control) = self.session.pod.servers.overload() else {
            return Ok(());
        };
        let policy = control.policy();
        let said = said(&self.head.headers, &policy.headers);
        let stands_for = self.head.headers.remove(STANDS_FOR);
        let stands_for = stands_for.and_then(|it| it.to_str().ok()?.parse().ok());
        let stands_for = stands_for.unwrap_or(1).clamp(1, MOST_STANDS_FOR);
        if let Some((request, said)) = identity(&self.head.headers).zip(said) {
            self.session
                .pod
                .priorities
                .add(request, said, Instant::now());
        }
        let is_critical =
            said.is_some_and(Priority::is_critical) || self.is_critical(&policy.critical);
        let asking = Asking {
            priority: said.unwrap_or_default(),
            is_critical,
            stands_for,
        };
        let turn = control.turn(asking, self.destination);
        let turn = within(self.deadline, pin!(turn)).await;
        self.turn = Some(turn.map_err(|Late| Reason::RequestTimeout)??);
        Ok(())
    }

    /// Whether its answer lasts for as long as its client wants: that is no work that others would wait for.
    pub(super) fn is_endless<B>(&self, answer: &Response<B>) -> bool {
        const WATCH: &str = "/grpc.health.v1.Health/Watch";
        let kind = answer.headers().get(header::CONTENT_TYPE);
        let is_events = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        is_events || self.is_grpc && self.head.uri.path() == WATCH
    }

    /// It is as important as the request that it is made for, unless it says otherwise.
    pub(super) fn inherit_priority(&mut self) {
        let pod = &self.session.pod;
        let Some(overload) = pod.servers.overload() else {
            return;
        };
        let names = &overload.policy().headers;
        if said(&self.head.headers, names).is_some() {
            return;
        }
        let caused_by = identity(&self.head.headers);
        let inherited = caused_by.and_then(|it| pod.priorities.get(it, Instant::now()));
        let inherited = inherited.map(|it| HeaderValue::from_str(&it.to_string()));
        if let Some(Ok(inherited)) = inherited {
            let name = names.priority.clone();
            self.head.headers.insert(name, inherited);
        }
    }

    /// How important it is to others.
    fn priority(&self) -> Priority {
        let overload = self.session.pod.servers.overload();
        let own = overload.as_ref().map(|overload| &overload.policy().headers);
        let names = own.unwrap_or_else(|| PriorityHeaders::usual());
        said(&self.head.headers, names).unwrap_or_default()
    }

    /// This endpoint, or another if its server has told that it would refuse the request.
    pub(super) fn not_overloaded(
        &mut self,
        mut endpoint: Arc<Endpoint>,
        tried: &[SocketAddr],
        now: Instant,
    ) -> Result<Arc<Endpoint>, Reason> {
        self.head.headers.remove(STANDS_FOR);
        if !endpoint.has_told() {
            return Ok(endpoint);
        }
        let priority = self.priority();
        let mut tried = tried.to_vec();
        loop {
            match endpoint.would_admit(priority, now) {
                Answer::Admitted => return Ok(endpoint),
                Answer::Probe { stands_for } => {
                    let stands_for = HeaderValue::from(stands_for);
                    self.head.headers.insert(STANDS_FOR, stands_for);
                    return Ok(endpoint);
                }
                Answer::Refused => tried.push(endpoint.address),
            }
            let next = self.destination.pick(self.key, &tried, now);
            endpoint = next
                .filter(|next| !tried.contains(&next.address))
                .ok_or(Reason::ServerOverloaded)?;
        }
    }
}

/// How important a request is, if it says so, or whose it is.
fn said(headers: &HeaderMap, names: &PriorityHeaders) -> Option<Priority> {
    let user = headers.get(&names.user).map(|user| {
        let hours = SystemTime::now().duration_since(UNIX_EPOCH);
        let hour = hours.map_or(0, |since| since.as_secs() / 3600);
        user_priority(user.as_bytes(), hour)
    });
    let usual = Priority::default();
    let of_user = user.unwrap_or(usual.user);
    let priority = headers.get(&names.priority);
    let priority = priority.and_then(|it| Priority::parse_with_user(it.to_str().ok()?, of_user));
    priority.or_else(|| user.map(|user| Priority { user, ..usual }))
}
