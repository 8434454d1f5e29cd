//! Plots of throughput by appends in flight, as SVG.

use std::path::Path;

use bench_load::{Outcome, Result};
use plotters::prelude::*;

use crate::report::{IN_FLIGHT, SYSTEMS};
use crate::results::{Results, append_key};

const SIZE: (u32, u32) = (1080, 640);
/// Where the chart ends and the legend begins.
const CHART_WIDTH: u32 = 830;
const LEGEND_LINE: i32 = 24;
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
    let (left, right) = root.split_horizontally(CHART_WIDTH);
    let mut chart = ChartBuilder::on(&left)
        .caption(format!("Durable events a second, {payload}-byte payloads"), ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(45)
        .y_label_area_size(80)
        .build_cartesian_2d(-0.1..IN_FLIGHT.len() as f64 - 0.9, (least * 0.8..most * 1.25).log_scale())?;
    let in_flight = |x: &f64| {
        let index = x.round();
        let near = (x - index).abs() < 0.01 && index >= 0.0;
        near.then(|| IN_FLIGHT.get(index as usize)).flatten().map_or(String::new(), usize::to_string)
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(4)
        .x_label_formatter(&in_flight)
        .y_label_formatter(&|rate| crate::report::short(*rate))
        .x_desc("appends in flight (lines or rows a sync)")
        .label_style(FONT)
        .draw()?;
    for (index, (system, points)) in lines.iter().enumerate() {
        let color = Palette99::pick(index).to_rgba();
        let style = color.stroke_width(if system.starts_with("actors") { 3 } else { 1 });
        let medians = points.iter().map(|(x, spread)| (*x, spread.median));
        chart.draw_series(LineSeries::new(medians, style).point_size(3))?;
        // Least to most of the rounds.
        chart
            .draw_series(points.iter().map(|(x, spread)| PathElement::new([(*x, spread.min), (*x, spread.max)], color.stroke_width(1))))?;
        let y = 50 + LEGEND_LINE * index as i32;
        right.draw(&PathElement::new([(0, y), (24, y)], style))?;
        right.draw(&Text::new(system.clone(), (32, y - 8), FONT))?;
    }
    root.present()?;
    Ok(true)
}
