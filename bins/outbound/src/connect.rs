//! Connections to other servers.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    rc::Rc,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpSocket,
};

/// A connection, in clear or not.
pub trait Wire: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Wire for T {}

/// A connection on its way.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<Box<dyn Wire>>>>>;

/// Connects to an address of another server: TCP, or the network of the simulated tree.
pub type Connect = Rc<dyn Fn(IpAddr) -> Connecting>;

/// By TCP, from one of the `source` addresses of the same family if there is one.
#[must_use]
pub fn tcp(source: Vec<IpAddr>, port: u16) -> Connect {
    Rc::new(move |ip| {
        let bind = source.iter().find(|source| source.is_ipv4() == ip.is_ipv4()).copied();
        Box::pin(async move {
            let socket = if ip.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            if let Some(source) = bind {
                socket.bind(SocketAddr::new(source, 0))?;
            }
            let stream = socket.connect(SocketAddr::new(ip, port)).await?;
            Ok(Box::new(stream) as Box<dyn Wire>)
        })
    })
}
