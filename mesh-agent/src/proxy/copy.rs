//! Copies bytes both ways between two TCP streams: half-close is passed on, and a reset of either
//! side is passed on as a reset, after all that this side had sent.

use std::{io, pin::pin, sync::atomic::AtomicU64};

use super::{
    direction::{Broken, copy, discard, pass_on_end},
    duplex::Duplex,
    last_words::last_words,
};

/// Who is gone.
enum Gone {
    Client,
    Server,
}

/// Copies until both directions have ended. An error means that one side is gone, and all that it
/// had sent is with the other, or that one does not take it: the caller must reset the other.
pub async fn copy_both_ways<D: Duplex>(
    client: &D,
    server: &D,
    sent: &AtomicU64,
    received: &AtomicU64,
) -> io::Result<()> {
    let mut upload = pin!(copy(client, server, sent));
    let mut download = pin!(copy(server, client, received));
    // Nobody would notice a reset of a side whose direction has ended, or whose bytes the other has
    // no room for.
    let mut client_reset = pin!(client.reset());
    let mut server_reset = pin!(server.reset());
    let (mut uploading, mut downloading) = (true, true);
    // An error that a write returns is not shown to the next read, which then takes a reset for the
    // end. The kernel's EPIPE says that the end had come before the reset.
    let mut end_is_real = true;
    let gone = loop {
        tokio::select! {
            biased;
            ended = &mut upload, if uploading => {
                uploading = false;
                match ended {
                    Ok(()) => pass_on_end(server.stream()),
                    Err(Broken::Source) => break Gone::Client,
                    Err(Broken::Target(error)) => {
                        end_is_real = error.kind() == io::ErrorKind::BrokenPipe;
                        break Gone::Server;
                    }
                }
            }
            ended = &mut download, if downloading => {
                downloading = false;
                match ended {
                    Ok(()) => pass_on_end(client.stream()),
                    Err(Broken::Source) => break Gone::Server,
                    Err(Broken::Target(error)) => {
                        end_is_real = error.kind() == io::ErrorKind::BrokenPipe;
                        break Gone::Client;
                    }
                }
            }
            () = &mut client_reset => break Gone::Client,
            () = &mut server_reset => break Gone::Server,
        }
        if !uploading && !downloading {
            return Ok(());
        }
    };
    // What the other side still sends has nowhere to go.
    match gone {
        Gone::Client => {
            let rest = uploading.then_some(upload);
            tokio::select! {
                () = last_words(rest, server.stream(), sent, end_is_real) => {}
                never = discard(server.stream()) => match never {},
            }
        }
        Gone::Server => {
            let rest = downloading.then_some(download);
            tokio::select! {
                () = last_words(rest, client.stream(), received, end_is_real) => {}
                never = discard(client.stream()) => match never {},
            }
        }
    }
    Err(io::ErrorKind::ConnectionReset.into())
}

#[cfg(test)]
mod tests;
