//! A proxy for any protocol over TCP: passes bytes, until it is told to lose them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passing {
    Everything,
    /// Requests arrive, answers do not.
    RequestsOnly,
    /// Neither, and nobody is told.
    Nothing,
    /// Connections break, and new ones are closed at once.
    Refused,
}

/// A listening proxy. It serves until the runtime ends.
#[derive(Debug)]
pub struct TcpProxy {
    pub address: String,
    passing: Arc<watch::Sender<Passing>>,
}

impl TcpProxy {
    /// Listens before this server.
    pub async fn before(upstream: &str) -> io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], crate::process::free_port()))).await?;
        let address = listener.local_addr()?.to_string();
        let passing = Arc::new(watch::Sender::new(Passing::Everything));
        let (shared, upstream) = (Arc::clone(&passing), upstream.to_owned());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (passing, upstream) = (shared.subscribe(), upstream.clone());
                tokio::spawn(async move {
                    // A broken connection is what both sides must live with: nobody to tell.
                    let _ = serve(client, &upstream, passing).await;
                });
            }
        });
        Ok(Self { address, passing })
    }

    pub fn set(&self, passing: Passing) {
        self.passing.send_replace(passing);
    }
}

async fn serve(client: TcpStream, upstream: &str, mut passing: watch::Receiver<Passing>) -> io::Result<()> {
    if *passing.borrow() == Passing::Refused {
        return Ok(());
    }
    let server = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let requests = |passing| passing != Passing::Nothing;
    let answers = |passing| passing == Passing::Everything;
    let (there, back) = (passing.clone(), passing.clone());
    tokio::select! {
        biased;
        refused = passing.wait_for(|passing| *passing == Passing::Refused) => refused.map(|_| ()).map_err(io::Error::other),
        ended = pass(from_client, to_server, there, requests) => ended,
        ended = pass(from_server, to_client, back, answers) => ended,
    }
}

/// Copies one direction. What comes while it does not pass is lost; the connection is useless from then on, as after a
/// cut cable, and what it swallowed it never gives back.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    passing: watch::Receiver<Passing>,
    passes: impl Fn(Passing) -> bool,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut lost = false;
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        lost |= !passes(*passing.borrow());
        if !lost {
            to.write_all(&buffer[..read]).await?;
        }
    }
}
