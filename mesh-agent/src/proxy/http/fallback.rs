//! What is answered instead of a refusal or a failure.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::body::AnswerBody;
use crate::config;

/// The header of answers that stand for others, with the reason.
pub const DEGRADED: HeaderName = HeaderName::from_static("x-mesh-degraded");

/// What is answered instead of a refusal or a failure.
#[derive(Clone, Debug, PartialEq)]
pub enum Fallback {
    /// What the destination of this name answers.
    Destination(Box<str>),
    /// Always the same.
    Static(StaticAnswer),
}

/// An answer of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct StaticAnswer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl StaticAnswer {
    /// The answer, once more.
    pub fn answer(&self) -> Response<AnswerBody> {
        let mut response = Response::new(AnswerBody::of(self.body.clone()));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers.clone();
        response
    }
}

impl From<&config::Fallback> for Fallback {
    /// What cannot be was refused when the file was read.
    fn from(fallback: &config::Fallback) -> Self {
        if let Some(name) = &fallback.destination {
            return Self::Destination(name.as_str().into());
        }
        let status = fallback.status.unwrap_or(200);
        let headers = fallback.headers.iter().filter_map(|(name, value)| {
            let name = HeaderName::try_from(name).ok()?;
            Some((name, HeaderValue::from_str(value).ok()?))
        });
        Self::Static(StaticAnswer {
            status: StatusCode::from_u16(status).unwrap_or_default(),
            headers: headers.collect(),
            body: Bytes::from(fallback.body.clone()),
        })
    }
}
