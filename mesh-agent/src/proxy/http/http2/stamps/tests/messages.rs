//! Messages on streams, and where in a connection's bytes they are.

use std::ops::Range;

use proptest::prelude::*;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
/// Frames of the connection, or of a stream, that are no message: PRIORITY, SETTINGS, PING, WINDOW_UPDATE.
const OTHERS: [u8; 4] = [2, 4, 6, 8];
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A frame: kind, flags, length of its payload.
type Frame = (u8, u8, usize);

/// A request or an answer.
#[derive(Clone, Debug)]
pub struct Message {
    stream: u32,
    frames: Vec<Frame>,
    /// How many heads precede its own.
    interim: usize,
}

/// Where a message is.
#[derive(Clone, Debug)]
pub struct Places {
    pub stream: u32,
    /// Offsets after what precedes the payload of each of its HEADERS, which names the stream.
    pub heads: Vec<usize>,
    /// How many of these precede its own.
    pub interim: usize,
    /// Offset after its last byte.
    pub end: usize,
}

/// The bytes of a connection.
#[derive(Clone, Debug)]
pub struct Interleaved {
    pub bytes: Vec<u8>,
    pub places: Vec<Places>,
}

impl Message {
    /// A head that is all.
    pub fn head(stream: u32) -> Self {
        Self {
            stream,
            frames: vec![(HEADERS, END_STREAM | END_HEADERS, 30)],
            interim: 0,
        }
    }

    /// As it is when nothing comes between.
    pub fn bytes(&self) -> Vec<u8> {
        let frames = self.frames.iter();
        frames
            .flat_map(|frame| bytes(*frame, self.stream))
            .collect()
    }
}

/// A frame with a payload that looks like the heads of other ones.
fn bytes((kind, flags, length): Frame, stream: u32) -> Vec<u8> {
    let mut bytes = (length as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(
        [0, 0, 0, HEADERS, END_STREAM, 0, 0, 0, 1]
            .iter()
            .cycle()
            .take(length),
    );
    bytes
}

/// A message that so many heads may precede.
pub fn message(interim: Range<usize>) -> impl Strategy<Value = Message> {
    let length = || prop_oneof![Just(0), 0..40_usize, 0..2_000_usize];
    let data = prop::collection::vec(length(), 0..4);
    (interim, length(), data, any::<bool>(), length()).prop_map(
        |(interim, head, data, has_trailers, last)| {
            let mut frames = vec![(HEADERS, END_HEADERS, 5); interim];
            frames.push((HEADERS, END_HEADERS, head));
            frames.extend(data.iter().map(|length| (DATA, 0, *length)));
            if has_trailers {
                frames.push((HEADERS, END_HEADERS, last));
            }
            frames.last_mut().unwrap().1 |= END_STREAM;
            Message {
                stream: 0,
                frames,
                interim,
            }
        },
    )
}

/// These on streams of their own, frame by frame between each other. `in_order`: as requests are, those with a higher
/// stream begin later.
pub fn interleaved(
    messages: impl Strategy<Value = Vec<Message>>,
    in_order: bool,
) -> impl Strategy<Value = Interleaved> {
    let turns = prop::collection::vec((any::<prop::sample::Index>(), 0..12_usize), 1..60);
    (messages, turns).prop_map(move |(mut messages, turns)| {
        for (number, message) in messages.iter_mut().enumerate() {
            message.stream = number as u32 * 2 + 1;
        }
        let mut all = Interleaved {
            bytes: Vec::new(),
            places: messages
                .iter()
                .map(|message| Places {
                    stream: message.stream,
                    heads: Vec::new(),
                    interim: message.interim,
                    end: 0,
                })
                .collect(),
        };
        let mut next = vec![0; messages.len()];
        let mut turns = turns.into_iter().cycle();
        loop {
            let new = next.iter().position(|it| *it == 0).unwrap_or(next.len());
            let can: Vec<usize> = (0..messages.len())
                .filter(|it| next[*it] < messages[*it].frames.len())
                .filter(|it| !in_order || *it <= new)
                .collect();
            if can.is_empty() {
                return all;
            }
            let (turn, other) = turns.next().unwrap();
            let which = can[turn.index(can.len())];
            let frame = messages[which].frames[next[which]];
            next[which] += 1;
            let places = &mut all.places[which];
            if frame.0 == HEADERS {
                places.heads.push(all.bytes.len() + 9);
            }
            all.bytes.extend(bytes(frame, places.stream));
            places.end = all.bytes.len();
            if let Some(kind) = OTHERS.get(other) {
                all.bytes.extend(bytes((*kind, 1, 8), places.stream));
            }
        }
    })
}
