use proptest::prelude::*;

use super::*;

/// A frame: kind, flags, stream, payload.
type Frame = (u8, u8, u8, Vec<u8>);

fn frame() -> impl Strategy<Value = Frame> {
    let kind = prop_oneof![8 => Just(0_u8), 1 => Just(1), 1 => Just(8)];
    let flags = prop_oneof![8 => Just(0_u8), 2 => Just(1), 1 => Just(8)];
    let length = prop_oneof![
        0..20_usize,
        1_000..9_000_usize,
        8_192..8_193_usize,
        60_000..70_000_usize
    ];
    (kind, flags, 1..3_u8, length, any::<u8>())
        .prop_map(|(kind, flags, stream, length, fill)| (kind, flags, stream, vec![fill; length]))
}

fn bytes(frames: &[Frame]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, flags, stream, payload) in frames {
        bytes.extend(&(payload.len() as u32).to_be_bytes()[1..]);
        bytes.extend([*kind, *flags, 0, 0, 0, *stream]);
        bytes.extend(payload);
    }
    bytes
}

fn frames(mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some(head) = Head::of(bytes) {
        let end = HEAD + head.length;
        let stream = head.stream[3];
        frames.push((head.kind, head.flags, stream, bytes[HEAD..end].to_vec()));
        bytes = &bytes[end..];
    }
    assert!(bytes.is_empty(), "{} bytes are in no frame", bytes.len());
    frames
}

/// What the frames say, however DATA is cut.
fn meaning(frames: &[Frame]) -> Vec<Frame> {
    let mut meaning: Vec<Frame> = Vec::new();
    for frame in frames {
        match meaning.last_mut() {
            Some(last)
                if (last.0, last.1, last.2, frame.0, frame.1 & !1) == (0, 0, frame.2, 0, 0) =>
            {
                last.1 = frame.1;
                last.3.extend(&frame.3);
            }
            _ => meaning.push(frame.clone()),
        }
    }
    meaning
}

/// Passes `bytes` through, of which so many come at once and so many are asked for at once.
fn pass(preface: usize, bytes: &[u8], come: &[usize], asked: usize) -> Vec<u8> {
    let mut joined = JoinedFrames::after(preface);
    let mut come = come.iter().copied().cycle();
    let mut given = Vec::new();
    let mut buffer = vec![0; asked];
    let mut left = bytes;
    loop {
        let mut into = ReadBuf::new(&mut buffer);
        if joined.give(&mut into) {
            given.extend(into.filled());
            continue;
        }
        let filled = joined.fill(|read| {
            let room = read.capacity() - read.len();
            let count = left.len().min(come.next().unwrap_or(1)).min(room);
            assert!(count > 0 || left.is_empty(), "no room to read into");
            read.extend(&left[..count]);
            left = &left[count..];
            Ok(count)
        });
        if filled.unwrap() == 0 {
            let mut into = ReadBuf::new(&mut buffer);
            while joined.give(&mut into) {
                given.extend(into.filled());
                into.clear();
            }
            return given;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The same is said, in frames that are no longer than they may be, or were.
    #[test]
    fn joining_changes_how_data_is_cut_and_nothing_else(
        sent in prop::collection::vec(frame(), 0..30),
        preface in prop::sample::select(vec![0, 24]),
        come in prop::collection::vec(1..80_000_usize, 1..10),
        asked in 1..70_000_usize,
    ) {
        let mut all = vec![b'P'; preface];
        all.extend(bytes(&sent));
        let given = pass(preface, &all, &come, asked);
        prop_assert_eq!(&given[..preface], &all[..preface]);
        let given = frames(&given[preface..]);
        prop_assert!(meaning(&given) == meaning(&sent));
        let longest = sent.iter().map(|frame| frame.3.len()).max().unwrap_or_default();
        let longest = longest.max(LONGEST as usize);
        prop_assert!(given.iter().all(|frame| frame.3.len() <= longest));
    }

    /// Wherever a connection ends, everything that came is given.
    #[test]
    fn what_is_cut_is_given_as_well(
        sent in prop::collection::vec(frame(), 1..5),
        cut in any::<prop::sample::Index>(),
    ) {
        let all = bytes(&sent);
        let all = &all[..cut.index(all.len())];
        let given = pass(0, all, &[80_000], 70_000);
        prop_assert!(given.len() <= all.len());
        prop_assert!(all.len() - given.len() <= HEAD * sent.len());
    }
}

#[test]
fn an_answer_that_is_there_is_one_frame() {
    let headers = (1, 4, 1, vec![7; 40]);
    let mut sent = vec![headers.clone()];
    sent.extend(std::iter::repeat_n((0, 0, 1, vec![1; 8_192]), 3));
    sent.push((0, 1, 1, vec![1; 100]));
    let given = frames(&pass(0, &bytes(&sent), &[80_000], 70_000));
    assert!(given == [headers, (0, 1, 1, vec![1; 3 * 8_192 + 100])]);
}

#[test]
fn short_frames_are_left_to_the_librarys_limits() {
    let sent = vec![(0, 0, 1, vec![1; 10]); 50];
    assert!(frames(&pass(0, &bytes(&sent), &[80_000], 70_000)) == sent);
}
