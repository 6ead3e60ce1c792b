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
    /// Connects by the agent or the pod's external proxy, let through.
    OwnSocket = "ownSocket",
    /// Connects to loopback, link-local, multicast or unspecified (::).
    Local = "local",
    /// Connects to an excluded address range, let through.
    ExcludedCidr = "excludedCidr",
    /// Connects to an excluded port, let through.
    ExcludedPort = "excludedPort",
    /// Connects of sockets bound to a device, let through.
    BoundToDevice = "boundToDevice",
    /// Connects in pods with capture.outbound: false, let through.
    NotCaptured = "notCaptured",
    /// Connects let through: nobody listened (onAgentDown: open).
    FailedOpen = "failedOpen",
    /// Connects refused: nobody listened (onAgentDown: closed).
    Refused = "refused",
    /// Connects let through: origin_dst_map full (onAgentDown: open).
    MapFullOpen = "mapFullOpen",
    /// Connects refused: origin_dst_map full (onAgentDown: closed).
    MapFullRefused = "mapFullRefused",
    /// Connects without memory to be remembered (onAgentDown decides).
    NoMemory = "noMemory",
    /// Connections reset: their original destination was not stored.
    OriginLost = "originLost",
    /// Answered SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST calls.
    OriginalDstAnswered = "originalDstAnswered",
    /// Datagram destinations handed to the agent, once for each socket.
    DatagramsRedirected = "datagramsRedirected",
    /// Datagram destinations forgotten: their socket talks to too many.
    DatagramsForgotten = "datagramsForgotten",
    /// Binds of servers to every address, moved to loopback.
    BindsRewritten = "bindsRewritten",
    /// Servers' listening sockets that were captured.
    InboundListening = "inboundListening",
    /// Servers' listening sockets left alone: inbound_ports is full.
    InboundFull = "inboundFull",
    /// Inbound connections whose server sees its client's own address.
    InboundAccepted = "inboundAccepted",
    /// Times that pods' sockets were not measured: pod_sockets is full.
    PodSocketsFull = "podSocketsFull",
}

#[cfg(test)]
mod tests {
    use super::COUNTERS;

    #[test]
    fn help_fits_a_line_of_100_columns_beside_name_and_value() {
        for (_, name, help) in COUNTERS {
            let help = help.trim();
            assert!(help.len() <= 64, "{name}: {} characters", help.len());
        }
    }
}
