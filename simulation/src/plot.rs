//! Pictures of what was seen.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::{
    chart::ChartBuilder,
    drawing::IntoDrawingArea as _,
    prelude::{PathElement, Rectangle, SVGBackend},
    series::LineSeries,
    style::{Color as _, RGBColor, WHITE},
};

use crate::{
    measure::{Measured, Second, ratio},
    scenario::{BEGIN, Scenario},
    strategy::Strategy,
};

const COLOURS: [RGBColor; 4] = [
    RGBColor(150, 150, 150),
    RGBColor(230, 160, 30),
    RGBColor(200, 50, 50),
    RGBColor(30, 110, 200),
];
/// How many seconds are shown.
const SHOWN: f64 = 100.0;

/// What is drawn of a second.
type Of = fn(&Second) -> f64;

/// Draws the useful answers and the load on the servers, second by second, for each strategy.
pub fn draw(file: &Path, scenario: Scenario, runs: &[(Strategy, Measured)]) -> Result<()> {
    let area = SVGBackend::new(file, (900, 560)).into_drawing_area();
    let failed = |error: &dyn std::fmt::Display| anyhow!("cannot draw {}: {error}", file.display());
    area.fill(&WHITE).map_err(|error| failed(&error))?;
    let halves = area.split_evenly((2, 1));
    let parts: [(&str, f64, Of); 2] = [
        ("useful answers, share of requests", 1.05, |second| {
            ratio(second.good, second.asked)
        }),
        ("tries at servers, for each request", 4.2, |second| {
            f64::from(second.tries) / f64::from(second.asked.max(1))
        }),
    ];
    for (half, (title, most, of)) in halves.iter().zip(parts) {
        let mut chart = ChartBuilder::on(half)
            .caption(format!("{}: {title}", scenario.name()), ("sans-serif", 16))
            .margin(8)
            .x_label_area_size(24)
            .y_label_area_size(40)
            .build_cartesian_2d(0.0..SHOWN, 0.0..most)
            .map_err(|error| failed(&error))?;
        chart
            .configure_mesh()
            .x_desc("seconds")
            .light_line_style(WHITE)
            .draw()
            .map_err(|error| failed(&error))?;
        let trouble = [
            (BEGIN.as_secs_f64(), 0.0),
            (scenario.end().as_secs_f64(), most),
        ];
        let shade = RGBColor(250, 225, 225).mix(0.6).filled();
        chart
            .draw_series([Rectangle::new(trouble, shade)])
            .map_err(|error| failed(&error))?;
        for ((strategy, measured), colour) in runs.iter().zip(COLOURS) {
            let points = measured.seconds.iter().enumerate();
            let points = points
                .map(|(at, second)| (at as f64, of(second).min(most)))
                .take_while(|(at, _)| *at <= SHOWN);
            chart
                .draw_series(LineSeries::new(points, colour.stroke_width(2)))
                .map_err(|error| failed(&error))?
                .label(strategy.name())
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2))
                });
        }
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.8))
            .border_style(RGBColor(180, 180, 180))
            .draw()
            .map_err(|error| failed(&error))?;
    }
    area.present().map_err(|error| failed(&error))
}
