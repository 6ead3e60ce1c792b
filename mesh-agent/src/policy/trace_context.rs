//! The identifiers that requests carry from service to service: W3C trace context and B3.

/// Whether this is a trace identifier: hexadecimal digits, not all of them zero.
fn is_identifier(text: &[u8], lengths: &[usize]) -> bool {
    lengths.contains(&text.len())
        && text.iter().all(u8::is_ascii_hexdigit)
        && text.iter().any(|digit| *digit != b'0')
}

/// The trace that a `traceparent` header is for (W3C Trace Context, 3.2): 32 hexadecimal digits.
pub fn of_traceparent(value: &[u8]) -> Option<&[u8]> {
    let mut parts = value.split(|byte| *byte == b'-');
    let version = parts.next()?;
    let trace = parts.next()?;
    let parent = parts.next()?;
    let flags = parts.next()?;
    let is_version = version.len() == 2 && version != b"ff";
    // Later versions may have more parts.
    let is_whole = version != b"00" || parts.next().is_none();
    (is_version
        && is_whole
        && version.iter().all(u8::is_ascii_hexdigit)
        && is_identifier(trace, &[32])
        && is_identifier(parent, &[16])
        && flags.len() == 2)
        .then_some(trace)
}

/// The trace that a `b3` header is for: 16 or 32 hexadecimal digits. `None` for a mere sampling
/// decision.
pub fn of_b3(value: &[u8]) -> Option<&[u8]> {
    let trace = value.split(|byte| *byte == b'-').next()?;
    is_identifier(trace, &[16, 32]).then_some(trace)
}

/// Where a request stands in a trace, as its caller says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The trace.
    pub trace: u128,
    /// The caller's span.
    pub span: u64,
    /// Whether the trace is kept.
    pub is_sampled: bool,
}

impl Caller {
    /// Reads a `traceparent` header.
    pub fn of_traceparent(value: &[u8]) -> Option<Self> {
        const SAMPLED: u64 = 1;
        let trace = of_traceparent(value)?;
        let mut parts = value.split(|byte| *byte == b'-').skip(2);
        let (span, flags) = (parts.next()?, parts.next()?);
        Some(Self {
            trace: number(trace)?,
            span: u64::try_from(number(span)?).ok()?,
            is_sampled: number(flags)? as u64 & SAMPLED != 0,
        })
    }

    /// Reads a `b3` header. What does not say whether the trace is kept, is kept.
    pub fn of_b3(value: &[u8]) -> Option<Self> {
        let mut parts = value.split(|byte| *byte == b'-');
        let (trace, span) = (parts.next()?, parts.next()?);
        Self::of_b3_parts(trace, span, parts.next())
    }

    /// Reads the headers that B3 has for each part.
    pub fn of_b3_parts(trace: &[u8], span: &[u8], sampled: Option<&[u8]>) -> Option<Self> {
        let is_good = is_identifier(trace, &[16, 32]) && is_identifier(span, &[16]);
        is_good.then_some(())?;
        Some(Self {
            trace: number(trace)?,
            span: u64::try_from(number(span)?).ok()?,
            is_sampled: sampled.is_none_or(|it| matches!(it, b"1" | b"d" | b"true")),
        })
    }
}

/// A `traceparent` header that says this.
pub fn traceparent(caller: Caller) -> String {
    let flags = u8::from(caller.is_sampled);
    format!("00-{:032x}-{:016x}-{flags:02x}", caller.trace, caller.span)
}

fn number(digits: &[u8]) -> Option<u128> {
    u128::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_read_as_written() {
        let trace = b"4bf92f3577b34da6a3ce929d0e0e4736";
        let of = |text: &str| of_traceparent(text.as_bytes()).map(<[u8]>::to_vec);
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(of(good), Some(trace.to_vec()));
        assert_eq!(of(&good.replacen("00", "cc", 1)), Some(trace.to_vec()));
        assert_eq!(
            of(&format!("{}-more", good.replacen("00", "cc", 1))),
            Some(trace.to_vec())
        );
        for bad in [
            "",
            "00",
            &good.replacen("00", "ff", 1),
            &format!("{good}-more"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
        assert_eq!(
            of_b3(b"80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1"),
            Some(&b"80f198ee56343ba864fe8b2a57d3eff7"[..])
        );
        assert_eq!(
            of_b3(b"64fe8b2a57d3eff7-e457b5a2e4d86bd1"),
            Some(&b"64fe8b2a57d3eff7"[..])
        );
        assert_eq!(of_b3(b"0"), None);
    }

    #[test]
    fn callers_are_read_and_written() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let caller = Caller::of_traceparent(text.as_bytes()).unwrap();
        assert!(caller.is_sampled && caller.span == 0x00f0_67aa_0ba9_02b7);
        assert_eq!(traceparent(caller), text);
        let not = text.replace("-01", "-00");
        let not = Caller::of_traceparent(not.as_bytes()).unwrap();
        assert_eq!(
            not,
            Caller {
                is_sampled: false,
                ..caller
            }
        );
        let b3 = |text: &str| Caller::of_b3(text.as_bytes());
        let long = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
        assert_eq!(b3(long), Some(caller));
        assert_eq!(b3(&format!("{long}-1-05e3ac9a4f6e3b90")), Some(caller));
        assert_eq!(b3(&format!("{long}-0")), Some(not));
        for bad in ["0", "1-2", "", "4bf92f3577b34da6a3ce929d0e0e4736"] {
            assert_eq!(b3(bad), None, "{bad}");
        }
    }
}
