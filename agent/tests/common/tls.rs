//! TLS on loopback: a private authority, by openssl; a client that pushes; a server that says what a test tells it to.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::image::{text, tool};

/// A private authority, and a certificate for 127.0.0.1.
pub(crate) struct Authority(tempfile::TempDir);

impl Authority {
    /// One for all tests of a program.
    pub(crate) fn get() -> &'static Self {
        static ONE: OnceLock<Authority> = OnceLock::new();
        ONE.get_or_init(Self::new)
    }

    fn new() -> Self {
        let new = Self(tempfile::tempdir().expect("a directory"));
        let openssl = |args: &str| {
            let output = tool("openssl", "openssl")
                .args(args.split(' '))
                .current_dir(new.0.path())
                .output()
                .expect("openssl runs");
            assert!(output.status.success(), "openssl {args}: {}", text(&output.stderr));
        };
        fs::write(new.file("extensions"), "subjectAltName = IP:127.0.0.1\n").expect("written");
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        openssl(&format!("req -x509 {key} -keyout ca.key -out ca.crt -days 2 -subj /CN=authority"));
        openssl(&format!("req {key} -keyout server.key -out server.csr -subj /CN=registry"));
        openssl(
            "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out server.crt",
        );
        new
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.file("ca.crt")
    }
}

fn certificates(file: &Path) -> Vec<CertificateDer<'static>> {
    let read: Result<_, _> = CertificateDer::pem_file_iter(file).expect("PEM").collect();
    read.expect("certificates")
}

/// Sends one request and gives the status and the whole answer, its head included.
pub(crate) fn request(to: SocketAddr, head: &str, body: &[u8]) -> io::Result<(u16, String)> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(&Authority::get().ca()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::IpAddress(to.ip().into());
    let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, TcpStream::connect(to)?);
    let length = body.len();
    write!(stream, "{head}\r\nHost: {to}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = text(&answer);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or_else(|| io::Error::other("no status"))?, answer))
}

/// What the server says.
pub(crate) struct Said {
    pub(crate) status: u16,
    headers: String,
    pub(crate) body: Vec<u8>,
    /// Waits so long before the answer.
    pub(crate) before: Duration,
    /// Sends only so much of the body, and then nothing.
    pub(crate) stops_after: Option<usize>,
}

impl Said {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let (before, stops_after) = (Duration::ZERO, None);
        Self { status, headers: String::new(), body: body.into(), before, stops_after }
    }

    pub(crate) fn header(mut self, line: &str) -> Self {
        self.headers += line;
        self.headers += "\r\n";
        self
    }
}

/// Given the path, and the head of the whole request.
type Says = dyn Fn(&str, &str) -> Said + Send + Sync;

/// A server of our own: it says to each path what the test told it to.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    asked: Arc<AtomicUsize>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(says: impl Fn(&str, &str) -> Said + Send + Sync + 'static) -> Self {
        let authority = Authority::get();
        let key = PrivateKeyDer::from_pem_file(authority.file("server.key")).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(certificates(&authority.file("server.crt")), key)
            .expect("a certificate with its key");
        let (config, says): (_, Arc<Says>) = (Arc::new(config), Arc::new(says));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (asked, ends) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counts, ended) = (Arc::clone(&asked), Arc::clone(&ends));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::Acquire) {
                    break;
                }
                let (config, says) = (Arc::clone(&config), Arc::clone(&says));
                let (counts, ended) = (Arc::clone(&counts), Arc::clone(&ended));
                // A client that goes away ends it.
                std::thread::spawn(move || {
                    stream.and_then(|stream| answer(stream, config, &*says, &counts, &ended))
                });
            }
        });
        Self { address, asked, ends, thread: Some(thread) }
    }

    /// Requests so far.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Acquire)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        // Wakes the thread that waits for a connection.
        drop(TcpStream::connect(self.address));
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// One request for each connection.
fn answer(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    says: &Says,
    counts: &AtomicUsize,
    ended: &AtomicBool,
) -> io::Result<()> {
    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 1 << 16 {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    counts.fetch_add(1, Ordering::AcqRel);
    let head = text(&head);
    let Said { status, headers, body, before, stops_after } =
        says(head.split(' ').nth(1).unwrap_or_default(), &head);
    std::thread::sleep(before);
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status} Said\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    stream.write_all(&body[..stops_after.unwrap_or(length)])?;
    stream.flush()?;
    while stops_after.is_some() && !ended.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(20));
    }
    stream.conn.send_close_notify();
    stream.flush()?;
    stream.sock.shutdown(Shutdown::Write)
}

/// A proxy, and how often it was used. Its thread ends with the program.
pub(crate) fn tunnel() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let used = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&used);
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            counts.fetch_add(1, Ordering::AcqRel);
            // One that breaks off fails the test by what it then does not get.
            std::thread::spawn(move || connect(client));
        }
    });
    (address, used)
}

fn connect(mut client: TcpStream) -> io::Result<u64> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = text(&head);
    let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next());
    let mut server = TcpStream::connect(target.ok_or_else(|| io::Error::other("expected CONNECT"))?)?;
    client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || io::copy(&mut from, &mut to).and_then(|_| to.shutdown(Shutdown::Write)));
    let copied = io::copy(&mut server, &mut client)?;
    client.shutdown(Shutdown::Write)?;
    Ok(copied)
}
