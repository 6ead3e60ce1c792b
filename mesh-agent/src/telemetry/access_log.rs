//! One line of JSON for each request, written by a thread of its own.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    net::SocketAddr,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::sync::oneshot;

use super::Exchanged;

/// Lines that may wait for the thread.
const MOST_WAITING: usize = 16_384;
/// How often the file is looked for under its name: whoever rotates logs moves it away.
const LOOK: Duration = Duration::from_secs(1);

/// The access log.
#[derive(Debug)]
pub struct AccessLog {
    lines: SyncSender<Message>,
    /// Lines that were too many, or could not be written.
    pub dropped: Arc<AtomicU64>,
}

enum Message {
    Line(Box<Exchanged>),
    /// To be answered once everything before it is written.
    Written(oneshot::Sender<()>),
}

impl AccessLog {
    /// To standard output.
    pub fn to_stdout() -> Self {
        Self::start(Output::Stdout(BufWriter::new(io::stdout())))
    }

    /// To the end of this file.
    pub fn to_file(path: PathBuf) -> io::Result<Self> {
        let file = open(&path)?;
        Ok(Self::start(Output::File(LogFile {
            inode: file.metadata()?.ino(),
            file: BufWriter::new(file),
            path,
            looked: Instant::now(),
        })))
    }

    fn start(output: Output) -> Self {
        let (lines, waiting) = sync_channel(MOST_WAITING);
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&dropped);
        thread::spawn(move || write(&waiting, output, &counter));
        Self { lines, dropped }
    }

    /// One more line.
    pub fn add(&self, exchanged: Box<Exchanged>) {
        if self.lines.try_send(Message::Line(exchanged)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything is written.
    pub async fn written(&self) {
        let (said, written) = oneshot::channel();
        if self.lines.try_send(Message::Written(said)).is_ok() {
            let _ended = written.await;
        }
    }
}

enum Output {
    Stdout(BufWriter<io::Stdout>),
    File(LogFile),
}

struct LogFile {
    path: PathBuf,
    file: BufWriter<File>,
    inode: u64,
    looked: Instant,
}

fn open(path: &PathBuf) -> io::Result<File> {
    // Paths and hosts are not everybody's business.
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

impl Output {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => stdout.write_all(line),
            Self::File(file) => file.current()?.write_all(line),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => stdout.flush(),
            Self::File(file) => file.file.flush(),
        }
    }
}

impl LogFile {
    /// The file that has the name now.
    fn current(&mut self) -> io::Result<&mut BufWriter<File>> {
        if self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            let inode = self.path.metadata().map(|data| data.ino());
            if inode.ok() != Some(self.inode) {
                let file = open(&self.path)?;
                self.file.flush()?;
                self.inode = file.metadata()?.ino();
                self.file = BufWriter::new(file);
            }
        }
        Ok(&mut self.file)
    }
}

fn write(waiting: &Receiver<Message>, mut output: Output, dropped: &AtomicU64) {
    let mut line = Vec::new();
    loop {
        let message = match waiting.try_recv() {
            Ok(message) => message,
            Err(TryRecvError::Disconnected) => return,
            Err(TryRecvError::Empty) => {
                // What cannot be written now may be later.
                let _later = output.flush();
                match waiting.recv() {
                    Ok(message) => message,
                    Err(_ended) => return,
                }
            }
        };
        match message {
            Message::Line(exchanged) => {
                line.clear();
                let put = serde_json::to_writer(&mut line, &Line::of(&exchanged));
                line.push(b'\n');
                if put.is_err() || output.write(&line).is_err() {
                    dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
            Message::Written(said) => {
                let _later = output.flush();
                let _gone = said.send(());
            }
        }
    }
}

/// A line, in the order of its fields.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    time: String,
    pod: &'a str,
    direction: &'static str,
    client: SocketAddr,
    destination: &'a str,
    endpoint: Option<SocketAddr>,
    protocol: String,
    method: &'a str,
    host: Option<&'a str>,
    path: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc_status: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    tries: u32,
    duration_ms: f64,
    bytes: u64,
    whole: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
}

impl<'a> Line<'a> {
    fn of(exchanged: &'a Exchanged) -> Self {
        Self {
            time: humantime::format_rfc3339_micros(exchanged.begun).to_string(),
            pod: &exchanged.pod,
            direction: if exchanged.is_inbound {
                "inbound"
            } else {
                "outbound"
            },
            client: exchanged.client,
            destination: &exchanged.destination,
            endpoint: exchanged.endpoint,
            protocol: format!("{:?}", exchanged.version),
            method: exchanged.method.as_str(),
            host: exchanged.host.as_deref(),
            path: &exchanged.path,
            status: exchanged.status.as_u16(),
            grpc_status: exchanged.grpc_status,
            reason: exchanged.reason,
            tries: exchanged.tries,
            duration_ms: exchanged.took.as_micros() as f64 / 1000.0,
            bytes: exchanged.bytes,
            whole: exchanged.is_whole,
            trace_id: exchanged.span.map(|span| format!("{:032x}", span.trace)),
        }
    }
}
