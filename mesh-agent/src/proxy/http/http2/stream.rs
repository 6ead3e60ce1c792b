//! One request of a client, on its stream.

use std::{future::poll_fn, pin::pin, sync::Arc};

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderValue, Method, Request, Response, header::CONTENT_LENGTH};
use http_body::Body as _;

use super::{Received, Sending, Waiting, sending::Unsent};
use crate::proxy::http::{
    body::AnswerBody,
    exchange::{Tunnel, exchange},
    headers,
    request_body::RequestBody,
    session::{Session, Stamps},
};

/// Answers a request.
pub async fn serve(
    session: Arc<Session>,
    request: Request<RecvStream>,
    stream: SendResponse<Bytes>,
) {
    if let Err(error) = answer(&session, request, stream).await {
        tracing::debug!("a stream of {} ended early: {error}", session.client);
    }
}

async fn answer(
    session: &Session,
    request: Request<RecvStream>,
    stream: SendResponse<Bytes>,
) -> Result<(), Unsent> {
    let is_head = request.method() == Method::HEAD;
    let (head, body) = request.into_parts();
    let body = Received::from_client(&head.headers, body);
    let request = Request::from_parts(head, RequestBody::Http2(body));
    let client = Waiting::new(stream);
    let answered = {
        let answered = pin!(exchange(session, request, Some(&client)));
        client.unless_reset(answered).await
    };
    match answered {
        Some((response, tunnel)) => reply(session, client, response, tunnel, is_head).await,
        // The client has given up, and the tries have ended with that.
        None => Ok(()),
    }
}

/// Sends the answer, and what is left of the request.
async fn reply(
    session: &Session,
    client: Waiting,
    response: Response<AnswerBody>,
    tunnel: Option<Tunnel>,
    is_head: bool,
) -> Result<(), Unsent> {
    let (mut head, mut body) = response.into_parts();
    if body.is_own() {
        complete(&mut head.headers, &body);
    }
    let head = Response::from_parts(head, ());
    if let Some(Tunnel::Stream(tunnel)) = tunnel {
        let stream = client.answer(head, false)?;
        return Box::pin(tunnel.join(stream)).await;
    }
    let is_all = body.is_end_stream() || is_head && body.is_own();
    let stream = client.answer(head, is_all)?;
    drop(client);
    if !is_all {
        let mut sending = Sending::new(stream, body);
        if let Stamps::Streams(stamps) = &session.stamps {
            sending = sending.tell(Arc::clone(stamps));
        }
        poll_fn(|context| {
            let sent = sending.poll(context);
            if sent.is_pending() {
                sending.body_mut().poll_request(context);
            }
            sent
        })
        .await?;
        body = sending.into_body();
    }
    // A server may answer before it has the whole request, and still want it.
    let rest = body.take_request();
    drop(body);
    if let Some(mut rest) = rest {
        poll_fn(|context| rest.poll(context)).await?;
    }
    Ok(())
}

/// What HTTP/2 has it that the headers of an answer of the agent's own are.
fn complete(headers: &mut http::HeaderMap, body: &AnswerBody) {
    headers::strip_hop_by_hop(headers);
    if let Some(length) = body.size_hint().exact().filter(|length| *length > 0) {
        let length = HeaderValue::from(length);
        headers.entry(CONTENT_LENGTH).or_insert(length);
    }
}
