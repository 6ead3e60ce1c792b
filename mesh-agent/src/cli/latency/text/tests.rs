use super::*;
use crate::admin::latency::StampCounts;

const PLAIN: Style = Style { colours: false };

fn times(p50: f64) -> FigureTimes {
    FigureTimes {
        mean: p50,
        p50,
        p90: p50 * 2.0,
        p99: p50 * 3.0,
        p999: p50 * 1_000.0,
        max: p50 * 1_000.0,
    }
}

fn served(of: &[(&str, f64)]) -> Served {
    let mut times: BTreeMap<String, FigureTimes> = of
        .iter()
        .map(|(name, p50)| ((*name).to_owned(), times(*p50)))
        .collect();
    let total = of.iter().map(|(_, p50)| p50).sum();
    times.insert("total".to_owned(), self::times(total));
    times.insert("roundTrip".to_owned(), self::times(62.0));
    Served {
        count: 318,
        retransmits: 2,
        sources: [("software".to_owned(), 318)].into(),
        times,
        ..Served::default()
    }
}

fn answer(recent: &Served) -> Answer {
    let of_all = Measured {
        destination: "web".to_owned(),
        recent: recent.clone(),
        ..Measured::default()
    };
    let of_server = Measured {
        pod: Some("client".to_owned()),
        endpoint: Some(
            "[fd00:1234:5678:9abc:def0:1234:5678:9abc]:65535"
                .parse()
                .unwrap(),
        ),
        ..of_all.clone()
    };
    Answer {
        sample: 0.01,
        most_per_second: 100,
        stages: Stage::ALL.map(|it| it.name().to_owned()).to_vec(),
        destinations: vec![of_all],
        series: vec![of_server],
        stamps: StampCounts {
            matched: 636,
            measured: 318,
            ..StampCounts::default()
        },
    }
}

fn slow_server() -> Served {
    served(&[("mesh", 120.0), ("network", 60.0), ("server", 820.0)])
}

#[test]
fn the_bar_is_as_wide_as_eighty_columns_and_shows_each_share() {
    let text = all(&answer(&slow_server()), Span::Recent, true, PLAIN);
    let bar = text.lines().find(|line| line.contains("p50  ")).unwrap();
    assert_eq!(bar.chars().count(), 80, "{text}");
    let count = |fill: char| bar.chars().filter(|it| *it == fill).count();
    assert_eq!((count('▓'), count('≈'), count('█')), (8, 4, 52), "{text}");
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
        assert!(!line.ends_with(' '), "{line:?}");
    }
    assert!(
        text.contains("slowest: server (82% of the time at p50)"),
        "{text}"
    );
    assert!(text.contains("1 request in 100"), "{text}");
    assert!(text.contains("retransmits: 2"), "{text}");
}

#[test]
fn all_eight_stages_at_once_fit() {
    let all_alike = Stage::ALL.map(|it| (it.name(), 12_345_678.0));
    let text = all(&answer(&served(&all_alike)), Span::Recent, true, PLAIN);
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    for stage in Stage::ALL {
        let fill = stages::look(stage).fill;
        assert!(
            text.contains(&format!("{fill} {} 1", stage.name())),
            "{text}"
        );
    }
}

#[test]
fn with_colours_the_text_is_the_same() {
    let coloured = all(
        &answer(&slow_server()),
        Span::Recent,
        true,
        Style { colours: true },
    );
    assert!(coloured.contains("\x1b[32m█"), "{coloured}");
    let mut bare = String::new();
    let mut rest = coloured.as_str();
    while let Some((before, after)) = rest.split_once('\x1b') {
        bare += before;
        rest = after.split_once('m').unwrap().1;
    }
    bare += rest;
    assert_eq!(
        bare,
        all(&answer(&slow_server()), Span::Recent, true, PLAIN)
    );
}

#[test]
fn nothing_is_said_of_figures_that_are_not_there() {
    let none = super::super::nothing::why;
    let mut answer = answer(&slow_server());
    assert_eq!(none(&answer, None, Span::Recent), None);
    let why = none(&answer, None, Span::SinceStart).unwrap();
    assert!(why.contains("no request has been measured yet"), "{why}");
    answer.destinations[0].since_start = std::mem::take(&mut answer.destinations[0].recent);
    let why = none(&answer, Some("web"), Span::Recent).unwrap();
    assert!(
        why.contains("to web") && why.contains("--since-start"),
        "{why}"
    );
    answer.destinations.clear();
    answer.sample = 0.0;
    let why = none(&answer, None, Span::Recent).unwrap();
    assert!(why.contains("`latency.sample` is 0"), "{why}");
}

#[test]
fn requests_without_figures_are_told_of() {
    let overlapping = Served {
        overlapping: 3,
        ..Served::default()
    };
    let text = all(&answer(&overlapping), Span::Recent, false, PLAIN);
    assert!(text.contains("3 more gave no figures"), "{text}");
    assert!(!text.contains("slowest"), "{text}");
}
