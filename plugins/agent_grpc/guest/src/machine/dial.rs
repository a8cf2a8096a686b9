//! Connections to ports of the guest itself.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc::Sender;
use tonic::{Status, Streaming};

use crate::error::Error;
use crate::proto::DialChunk;

const CHUNK_BYTES: usize = 32 << 10;

/// Connects to a port of an address, or of the loopback when that is empty: by IPv4 first, as
/// programs do that are told "localhost".
pub async fn connect(address: &[u8], port: u32) -> Result<TcpStream, Error> {
    let port = u16::try_from(port).ok().filter(|number| *number > 0);
    let port = port.ok_or_else(|| Error::InvalidRequest("a port is from 1 to 65535".into()))?;
    let places = if address.is_empty() {
        vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
    } else {
        let four = <[u8; 4]>::try_from(address);
        vec![four.map_err(|_| Error::InvalidRequest("an address has four bytes".into()))?.into()]
    };
    let addresses: Vec<_> = places.into_iter().map(|place| SocketAddr::new(place, port)).collect();
    Ok(TcpStream::connect(&addresses[..]).await?)
}

/// Writes what the client sends, until that ends: then the other side sees the end. If the client
/// is gone before, the connection is reset: nobody must take a part for the whole.
pub async fn send(mut chunks: Streaming<DialChunk>, mut half: OwnedWriteHalf) {
    while let Ok(Some(chunk)) = chunks.message().await {
        if half.write_all(&chunk.data).await.is_err() {
            return;
        }
        if chunk.is_last {
            let _ = half.shutdown().await; // the other side may have closed it
            return;
        }
    }
    // An error would mean that the connection has ended.
    let _ = half.as_ref().set_zero_linger();
    half.forget();
}

/// Sends the client what is read, until that ends or the client is gone.
pub async fn receive(mut half: OwnedReadHalf, client: Sender<Result<DialChunk, Status>>) {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let read = tokio::select! {
            read = half.read(&mut buffer) => read,
            () = client.closed() => return,
        };
        let message = match read {
            Ok(0) => return,
            Ok(count) => Ok(DialChunk { data: buffer[..count].to_vec(), ..DialChunk::default() }),
            Err(error) => Err(Error::from(error).into()),
        };
        let is_last = message.is_err();
        if client.send(message).await.is_err() || is_last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_port_without_a_listener_is_refused() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        assert!(matches!(connect(&[], port.into()).await, Err(Error::Io(_))));
        assert!(matches!(connect(&[1], 1).await, Err(Error::InvalidRequest(_))));
        for wrong in [0, 65_536, u32::MAX] {
            assert!(matches!(connect(&[], wrong).await, Err(Error::InvalidRequest(_))));
        }
    }

    #[tokio::test]
    async fn a_listener_on_the_ipv6_loopback_alone_is_reached() {
        let Ok(listener) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await else {
            return; // a host without IPv6
        };
        let port = listener.local_addr().unwrap().port();
        assert!(connect(&[], port.into()).await.is_ok());
    }

    #[tokio::test]
    async fn a_client_that_is_gone_is_not_waited_for() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let stream =
            connect(&[127, 0, 0, 1], listener.local_addr().unwrap().port().into()).await.unwrap();
        let (sender, receiver) = mpsc::channel(1);
        drop(receiver);
        receive(stream.into_split().0, sender).await;
    }

    #[tokio::test]
    async fn what_arrives_is_sent_and_then_the_end() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let stream =
            connect(&[127, 0, 0, 1], listener.local_addr().unwrap().port().into()).await.unwrap();
        let (mut there, _) = listener.accept().await.unwrap();
        there.write_all(b"data").await.unwrap();
        drop(there);
        let (sender, mut receiver) = mpsc::channel(1);
        let (half, _write) = stream.into_split();
        tokio::spawn(receive(half, sender));
        assert_eq!(receiver.recv().await.unwrap().unwrap().data, b"data");
        assert!(receiver.recv().await.is_none());
    }
}
