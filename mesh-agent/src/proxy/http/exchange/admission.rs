//! Whether a request is sent at all.

use std::time::Instant;

use http::{HeaderMap, Version, header};
use tokio::time;

use super::Exchange;
use crate::{
    policy::critical::{Critical, is_critical},
    proxy::{
        http::reason::Reason,
        protection::{
            Asking, NoSlot, ProtectionPolicy, Refusal, Slot, connection_slot, let_through,
        },
    },
};

impl Exchange<'_> {
    /// Waits for its turn, if it has to, or is refused.
    pub(super) async fn be_admitted(&mut self) -> Result<(), Refusal> {
        if self.session.is_inbound() {
            return self.wait_for_turn().await;
        }
        self.inherit_priority();
        let destination = self.destination;
        let Some(policy) = destination.policy.protection.as_deref() else {
            return Ok(());
        };
        let now = Instant::now();
        let asking = Asking {
            pod: &self.session.pod_name,
            headers: Some(&self.head.headers),
            is_critical: self.is_critical(&policy.critical),
        };
        let shared = self.session.pod.shared_rates.as_deref();
        let admitted = let_through(destination, shared, policy, &asking, now).await?;
        let wait = admitted.wait;
        self.admitted = Some(admitted);
        if !wait.is_zero() {
            if self.deadline.left(now).is_some_and(|left| left <= wait) {
                return Err(Refusal {
                    retry_after: Some(wait),
                    ..Reason::RateLimited.into()
                });
            }
            time::sleep(wait).await;
        }
        Ok(())
    }

    pub(super) fn is_critical(&self, rules: &[Critical]) -> bool {
        let headers = &self.head.headers;
        let agent = headers.get(header::USER_AGENT);
        let agent = agent.map(http::HeaderValue::as_bytes);
        let path = self.head.uri.path();
        is_critical(rules, path, agent, |name| {
            HeaderMap::contains_key(headers, name)
        })
    }

    /// A connection to send it over, where these are limited. Streams of HTTP/2 share theirs.
    pub(super) async fn connection_slot(&self) -> Result<Option<Slot>, Refusal> {
        let Some(policy) = self.limits_connections() else {
            return Ok(None);
        };
        let destination = self.destination;
        connection_slot(destination, policy, destination.policy.connect).await
    }

    /// The same, but only if there is one at once.
    pub(super) fn free_slot(&self) -> Result<Option<Slot>, NoSlot> {
        let limit = self.limits_connections().and_then(|it| it.connections);
        let Some(limit) = limit else {
            return Ok(None);
        };
        self.destination
            .protection
            .connections
            .at_once(limit)
            .map(Some)
    }

    fn limits_connections(&self) -> Option<&ProtectionPolicy> {
        let policy = self.destination.policy.protection.as_deref();
        policy.filter(|policy| policy.connections.is_some() && self.head.version != Version::HTTP_2)
    }
}
