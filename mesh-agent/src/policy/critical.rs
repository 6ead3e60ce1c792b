//! Which requests are refused last.

/// A rule by which a request is refused only when nothing else is left to refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Critical {
    /// Its path begins so.
    Path(Box<str>),
    /// It has this header, in lower case.
    Header(Box<str>),
}

/// The paths of gRPC's own health service, whichever rules there are.
const GRPC_HEALTH: &str = "/grpc.health.v1.Health/";

/// How the probes of Kubernetes name themselves.
const KUBERNETES_PROBE: &[u8] = b"kube-probe/";

impl Critical {
    /// Reads `path:/PREFIX` or `header:NAME`.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(prefix) = text.strip_prefix("path:") {
            return prefix.starts_with('/').then(|| Self::Path(prefix.into()));
        }
        let name = text.strip_prefix("header:")?;
        let is_name = !name.is_empty() && name.bytes().all(super::detection::is_token);
        is_name.then(|| Self::Header(name.to_ascii_lowercase().into()))
    }

    fn is_for(&self, path: &str, has_header: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::Path(prefix) => path.starts_with(&**prefix),
            Self::Header(name) => has_header(name),
        }
    }
}

/// Whether a request is one of those, or a health check as its `user-agent` or path says.
pub fn is_critical(
    rules: &[Critical],
    path: &str,
    user_agent: Option<&[u8]>,
    has_header: impl Fn(&str) -> bool,
) -> bool {
    user_agent.is_some_and(|agent| agent.starts_with(KUBERNETES_PROBE))
        || path.starts_with(GRPC_HEALTH)
        || rules.iter().any(|rule| rule.is_for(path, &has_header))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_and_health_checks_are_told_from_the_rest() {
        let rules = ["path:/pay", "header:X-Vip"].map(|rule| Critical::parse(rule).unwrap());
        let is = |path: &str, agent: &'static str, header: &str| {
            is_critical(&rules, path, Some(agent.as_bytes()), |name| name == header)
        };
        assert!(is("/payments", "curl", ""));
        assert!(is("/", "curl", "x-vip"));
        assert!(is("/", "kube-probe/1.34", ""));
        assert!(is("/grpc.health.v1.Health/Check", "grpc", ""));
        assert!(!is("/", "curl", "x-other"));
        for wrong in ["/pay", "path:pay", "header:", "header:a b", "method:GET"] {
            assert_eq!(Critical::parse(wrong), None, "{wrong}");
        }
    }
}
