//! Why there is nothing to show.

use super::{Answer, Span};

/// A sentence, if nothing was measured.
pub(super) fn why(answer: &Answer, name: Option<&str>, span: Span) -> Option<String> {
    let is_any = |span: Span| answer.destinations.iter().any(|it| seen(span, it));
    if is_any(span) {
        return None;
    }
    let of = name.map_or_else(
        || "no request".to_owned(),
        |name| format!("no request to {name}"),
    );
    let what = if span == Span::Recent && is_any(Span::SinceStart) {
        format!(
            "{of} was measured {}: there are figures of earlier ones with --since-start",
            span.words()
        )
    } else if answer.sample <= 0.0 {
        "nothing is measured: `latency.sample` is 0 in the configuration. \
         `mesh-agent trace --next 10` measures the next requests in any case"
            .to_owned()
    } else {
        let share = super::text::sampling(answer);
        format!(
            "{of} has been measured yet: {share}, of HTTP requests and of connections without any, to the \
             destinations of the file (to all, with `defaults`) and from outside to captured servers. `mesh-agent trace --next 10` \
             measures the next ones in any case"
        )
    };
    Some(what)
}

/// Whether anything was measured, with figures or not.
const fn seen(span: Span, measured: &super::Measured) -> bool {
    span.of(measured).is_any()
}
