//! One counter for every way that a connect can go.

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Index into the `counters` map (one `u64` per CPU).
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Counter {
            $($(#[doc = $doc])+ $variant,)+
        }

        /// Every counter with the name it has in `status` and, in snake case, in the metrics.
        pub const COUNTERS: &[(Counter, &str, &str)] =
            &[$((Counter::$variant, $name, concat!($($doc),+)),)+];
    };
}

counters! {
    /// Connects handed to the proxy in the pod.
    Redirected = "redirected",
    /// Redirected connects whose handshake with the proxy completed.
    Established = "established",
    /// Redirected connects closed before their handshake completed.
    NeverConnected = "neverConnected",
    /// Connects by the agent's own sockets or the pod's external proxy, let through.
    OwnSocket = "ownSocket",
    /// Connects to loopback, link-local, multicast or unspecified addresses, let through.
    Local = "local",
    /// Connects to an excluded address range, let through.
    ExcludedCidr = "excludedCidr",
    /// Connects to an excluded port, let through.
    ExcludedPort = "excludedPort",
    /// Connects of sockets bound to a device, which cannot reach loopback, let through.
    BoundToDevice = "boundToDevice",
    /// Connects in pods whose outbound traffic is not captured, let through.
    NotCaptured = "notCaptured",
    /// Connects that went direct because no proxy was listening (onAgentDown: open).
    FailedOpen = "failedOpen",
    /// Connects refused because no proxy was listening (onAgentDown: closed).
    Refused = "refused",
    /// Connects that went direct because origin_dst_map was full (onAgentDown: open).
    MapFullOpen = "mapFullOpen",
    /// Connects refused because origin_dst_map was full (onAgentDown: closed).
    MapFullRefused = "mapFullRefused",
    /// Connects that the kernel had no memory to remember (onAgentDown decides).
    NoMemory = "noMemory",
    /// Established connections whose original destination could not be stored; the proxy resets them.
    OriginLost = "originLost",
    /// Answered SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST calls.
    OriginalDstAnswered = "originalDstAnswered",
}
