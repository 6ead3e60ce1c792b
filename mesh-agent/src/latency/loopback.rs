//! Connections that tests stamp: both ends here.

use std::{io, mem::MaybeUninit, os::fd::AsFd};

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};

/// Both ends of a connection, on which nothing that is written waits for what comes after it.
pub async fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let one = TcpStream::connect(listener.local_addr()?).await?;
    let (other, _) = listener.accept().await?;
    one.set_nodelay(true)?;
    other.set_nodelay(true)?;
    Ok((one, other))
}

/// Reads and acknowledges what has come to `socket`, so that it does not hold up what is written next; says how
/// many bytes that was.
pub fn take(socket: &impl AsFd) -> io::Result<usize> {
    let socket = SockRef::from(socket);
    let mut buffer = [MaybeUninit::uninit(); 16 << 10];
    let mut taken = 0;
    loop {
        match socket.recv_with_flags(&mut buffer, libc::MSG_DONTWAIT) {
            Ok(0) => break,
            Ok(count) => taken += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    socket.set_tcp_quickack(true)?;
    Ok(taken)
}

/// Acknowledges what was read from `socket`, which the kernel may put off.
pub fn acknowledge(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_tcp_quickack(true)
}
