//! Plots of throughput by appends in flight, as SVG.

use std::path::Path;

use bench_load::{Outcome, Result};
use plotters::prelude::*;

use crate::report::{IN_FLIGHT, SYSTEMS};
use crate::results::{Results, append_key};

const SIZE: (u32, u32) = (1000, 640);
const FONT: (&str, u32) = ("sans-serif", 15);

/// Plots one payload size. False where there is nothing to plot.
pub fn throughput(results: &Results, payload: usize, path: &Path) -> Result<bool> {
    let line = |system: &&str| {
        let at = |(x, k): (usize, &usize)| Some((x as f64, results.spread(&append_key(system, *k, payload), Outcome::rate)?));
        let points: Vec<_> = IN_FLIGHT.iter().enumerate().filter_map(at).collect();
        (points.len() > 1).then(|| ((*system).to_owned(), points))
    };
    let lines: Vec<_> = SYSTEMS.iter().filter_map(line).collect();
    let rates = || lines.iter().flat_map(|(_, points)| points.iter()).flat_map(|(_, spread)| [spread.min, spread.max]);
    let (least, most) = (rates().fold(f64::INFINITY, f64::min), rates().fold(0.0, f64::max));
    if lines.is_empty() {
        return Ok(false);
    }
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("Durable events a second, {payload}-byte payloads"), ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(45)
        .y_label_area_size(80)
        .right_y_label_area_size(210)
        .build_cartesian_2d(-0.1..IN_FLIGHT.len() as f64 - 0.9, (least * 0.8..most * 1.25).log_scale())?;
    let in_flight = |x: &f64| {
        let index = x.round();
        let near = (x - index).abs() < 0.01 && index >= 0.0;
        near.then(|| IN_FLIGHT.get(index as usize)).flatten().map_or(String::new(), usize::to_string)
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(12)
        .x_label_formatter(&in_flight)
        .y_label_formatter(&|rate| crate::report::short(*rate))
        .x_desc("appends in flight (lines or rows a sync)")
        .label_style(FONT)
        .draw()?;
    for (index, (system, points)) in lines.iter().enumerate() {
        let color = Palette99::pick(index).to_rgba();
        let width = if system.starts_with("actors") { 3 } else { 1 };
        let style = color.stroke_width(width);
        chart
            .draw_series(LineSeries::new(points.iter().map(|(x, spread)| (*x, spread.median)), style).point_size(3))?
            .label(system.clone())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        // Least to most of the rounds.
        chart
            .draw_series(points.iter().map(|(x, spread)| PathElement::new([(*x, spread.min), (*x, spread.max)], color.stroke_width(1))))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::Coordinate(SIZE.0 as i32 - 390 + 90, 0))
        .label_font(FONT)
        .background_style(WHITE.mix(0.8))
        .draw()?;
    root.present()?;
    Ok(true)
}
