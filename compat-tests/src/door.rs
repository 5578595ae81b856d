//! One TCP address before brokers that change behind it, like the name or the load balancer that clients are given where
//! one broker can take over from another.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};

/// A listening door. It leads somewhere until the runtime ends.
#[derive(Debug)]
pub struct Door {
    pub address: String,
    leads_to: Arc<Mutex<String>>,
}

impl Door {
    pub async fn to(broker: &str) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], crate::process::free_port()));
        let listener = TcpListener::bind(address).await.expect("a free port can be listened on");
        let leads_to = Arc::new(Mutex::new(broker.to_owned()));
        let shared = Arc::clone(&leads_to);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let broker = shared.lock().clone();
                tokio::spawn(async move {
                    // Whoever comes while nobody is there, or breaks off, must try again: that is what is tested.
                    if let Ok(mut server) = TcpStream::connect(broker).await {
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Self { address: address.to_string(), leads_to }
    }

    /// Connections made from now on go to this broker.
    pub fn lead_to(&self, broker: &str) {
        broker.clone_into(&mut self.leads_to.lock());
    }
}
