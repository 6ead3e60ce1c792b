//! Servers that answer, or not, and reset the connection before the request is written.

use std::{
    future,
    io::Write as _,
    net::{TcpListener, TcpStream as Server},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime::Builder,
    time::timeout,
};

use super::*;

/// Nothing on this machine takes so long.
const LONG: Duration = Duration::from_secs(10);

/// A body in two pieces. Before the second, the server says its last and resets the connection.
struct InTwo {
    server: Option<Server>,
    says: &'static str,
    pieces: usize,
}

impl InTwo {
    fn end_of_server(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.write_all(self.says.as_bytes()).unwrap();
            // With the request in its queue, which nobody has read.
            drop(server);
        }
    }
}

impl Body for InTwo {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.pieces += 1;
        match self.pieces {
            1 => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"one"))))),
            2 => {
                // The first piece is written before there is a second.
                context.waker().wake_by_ref();
                Poll::Pending
            }
            3 => {
                self.end_of_server();
                let much = Bytes::from(vec![b'a'; 100_000]);
                Poll::Ready(Some(Ok(Frame::data(much))))
            }
            _ => Poll::Ready(None),
        }
    }
}

type Connected = (
    SendRequest<InTwo>,
    http1::Connection<TokioIo<HeardOut<TcpStream>>, InTwo>,
);

async fn connected() -> (Connected, Server, Arc<Writing>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let (server, _) = listener.accept().unwrap();
    let writing = Arc::default();
    let stream = HeardOut::new(stream, Arc::clone(&writing));
    let connected = http1::handshake(TokioIo::new(stream)).await.unwrap();
    (connected, server, writing)
}

/// What comes of a request to a server that says this: the answer, or whether nothing of it was sent.
async fn ask(says: &'static str) -> Result<Response<Bytes>, bool> {
    let ((mut sender, connection), server, writing) = connected().await;
    let body = InTwo {
        server: Some(server),
        says,
        pieces: 0,
    };
    let asking = async {
        let request = Request::post("/").body(body).unwrap();
        let answer = sender.try_send_request(request).await;
        let answer: Response<Incoming> = answer.map_err(|mut it| it.take_message().is_some())?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(|_| false)?;
        Ok(Response::from_parts(head, body.to_bytes()))
    };
    let driving = async {
        let _ended = connection.await;
        future::pending::<()>().await;
    };
    let answered = async {
        tokio::select! {
            answer = asking => answer,
            () = driving => unreachable!("it never ends"),
        }
    };
    let answered = timeout(LONG, answered).await.expect("it waits for ever");
    assert!(writing.has_failed());
    answered
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(test)
}

#[test]
fn an_answer_that_came_before_the_reset_is_read() {
    run(async {
        for says in [
            "HTTP/1.1 413 Content Too Large\r\ncontent-length: 4\r\n\r\nmuch",
            "HTTP/1.1 413 Content Too Large\r\ncontent-length: 4\r\nconnection: close\r\n\r\nmuch",
            "HTTP/1.1 413 Content Too Large\r\ntransfer-encoding: chunked\r\n\r\n4\r\nmuch\r\n0\r\n\r\n",
        ] {
            let answer = ask(says).await.unwrap();
            assert_eq!(answer.status(), 413);
            assert_eq!(answer.body(), "much");
        }
    });
}

#[test]
fn a_reset_without_an_answer_or_in_the_middle_of_one_is_still_one() {
    run(async {
        for says in [
            "",
            "HTTP/1.1 413 Content",
            "HTTP/1.1 413 Content Too Large\r\ncontent-length: 40\r\n\r\nmuch",
            // It lasts until the end, and nobody knows that this is it.
            "HTTP/1.1 413 Content Too Large\r\n\r\nmuch",
        ] {
            assert!(!ask(says).await.unwrap_err(), "{says}: it was sent");
        }
    });
}

#[test]
fn writing_fails_at_once_if_nothing_of_the_request_was_written() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let writing = Arc::<Writing>::default();
        let mut stream = HeardOut::new(stream, Arc::clone(&writing));
        stream.write_all(b"the request before").await.unwrap();
        writing.begin();
        server.write_all(b"its answer").unwrap();
        drop(server);
        assert!(is_reset(&stream.write_all(b"the next").await.unwrap_err()));
        let mut bytes = [0; 10];
        stream.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"its answer");
        assert!(!writing.has_failed(), "the library knows");
    });
}
