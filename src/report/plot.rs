//! Plots as inline SVG. The colours in the SVG serve as names: the style sheet of the page maps each to
//! its value in the light or the dark theme (see [`style`]).

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

/// Colours of series in the light and in the dark theme; distinguishable to the colour-blind
/// (after Okabe and Ito).
const PALETTE: [(RGBColor, &str); 6] = [
    (RGBColor(0x00, 0x5f, 0xa8), "#5ab4f0"),
    (RGBColor(0xc7, 0x4a, 0x00), "#ff8f4a"),
    (RGBColor(0x00, 0x80, 0x5e), "#3ecf9f"),
    (RGBColor(0xa8, 0x3f, 0x85), "#e58cc6"),
    (RGBColor(0x8a, 0x6a, 0x00), "#e3bd3c"),
    (RGBColor(0x5b, 0x4b, 0xb0), "#a99bf5"),
];
const INK: (RGBColor, &str) = (RGBColor(0x22, 0x26, 0x2b), "#e6e8ea");
const FAINT: (RGBColor, &str) = (RGBColor(0x9a, 0xa3, 0xad), "#6b747e");
const GRID: (RGBColor, &str) = (RGBColor(0xe6, 0xe9, 0xec), "#2c3239");

/// Space for the axis labels and around the plot, in pixels.
const LEFT: u32 = 84;
const BELOW: u32 = 56;
const MARGIN: u32 = 12;
const RIGHT: u32 = 30;

/// The colour of a series.
#[derive(Clone, Copy, PartialEq)]
pub enum Colour {
    /// A colour of the palette, by number.
    Series(usize),
    /// The colour of text.
    Ink,
    /// A faint colour, for references.
    Faint,
}

impl Colour {
    fn rgb(self) -> RGBColor {
        match self {
            Colour::Series(index) => PALETTE[index % PALETTE.len()].0,
            Colour::Ink => INK.0,
            Colour::Faint => FAINT.0,
        }
    }

    /// The colour as CSS.
    pub fn css(self) -> String {
        match self {
            Colour::Series(index) => format!("var(--series-{})", index % PALETTE.len()),
            Colour::Ink => "var(--ink)".into(),
            Colour::Faint => "var(--faint)".into(),
        }
    }
}

/// How a series is drawn.
#[derive(Clone, Copy, PartialEq)]
pub enum Mark {
    /// A line this many pixels wide.
    Line(u32),
    /// A dashed line.
    Dashed,
    /// Small translucent dots.
    Dots,
    /// Discs.
    Discs,
    /// Large rings around points.
    Rings,
}

/// Points drawn in the same way. Points that are not finite interrupt a line.
pub struct Series {
    /// The name in the legend; empty for none.
    pub label: String,
    /// Its colour.
    pub colour: Colour,
    /// Its mark.
    pub mark: Mark,
    /// (x, y).
    pub points: Vec<(f64, f64)>,
}

impl Series {
    /// The line on which both coordinates are equal, faint and without a name.
    pub fn diagonal(from: f64, to: f64) -> Self {
        Series {
            label: String::new(),
            colour: Colour::Faint,
            mark: Mark::Line(1),
            points: vec![(from, from), (to, to)],
        }
    }
}

/// A plot with its axes.
pub struct Plot {
    /// What it shows, for screen readers.
    pub title: String,
    /// Label of the x axis.
    pub x: String,
    /// Label of the y axis.
    pub y: String,
    /// True for a logarithmic y axis; points at or below zero are left out.
    pub log: bool,
    /// True if a unit has the same length on both axes.
    pub equal: bool,
    /// Width and height in pixels.
    pub size: (u32, u32),
    /// The series, the last on top.
    pub series: Vec<Series>,
}

impl Plot {
    /// A figure: the plot with its legend. `None` if there is nothing to draw.
    pub fn figure(&self) -> Option<String> {
        let svg = self.svg()?;
        let mut legend = String::new();
        for Series { label, colour, mark, .. } in self.series.iter().filter(|s| !s.label.is_empty())
        {
            let class = match mark {
                Mark::Line(_) => "line",
                Mark::Dashed => "dashed",
                Mark::Dots | Mark::Discs => "dot",
                Mark::Rings => "ring",
            };
            let (colour, label) = (colour.css(), super::page::escape(label));
            legend.push_str(&format!(
                "<li><span class=\"key {class}\" style=\"color:{colour}\"></span>{label}</li>"
            ));
        }
        let legend = match legend.is_empty() {
            true => legend,
            false => format!("<ul class=\"legend\">{legend}</ul>"),
        };
        Some(format!("<figure>{legend}{svg}</figure>"))
    }

    fn svg(&self) -> Option<String> {
        let seen = |&(x, y): &(f64, f64)| x.is_finite() && y.is_finite() && (!self.log || y > 0.0);
        let points = || self.series.iter().flat_map(|s| &s.points).copied().filter(seen);
        let (mut x, mut y) = (range(points().map(|p| p.0))?, range(points().map(|p| p.1))?);
        if self.log {
            let (low, high) = (y.0.log10(), y.1.log10());
            let margin = (0.04 * (high - low)).max(0.05);
            y = (10f64.powf(low - margin), 10f64.powf(high + margin));
        } else {
            y = widen(y);
        }
        if self.equal {
            x = widen(x);
            let width = f64::from(self.size.0 - LEFT - MARGIN - RIGHT);
            let height = f64::from(self.size.1 - BELOW - 2 * MARGIN);
            let unit = ((x.1 - x.0) / width).max((y.1 - y.0) / height);
            let around = |range: (f64, f64), pixels: f64| {
                let (middle, half) = ((range.0 + range.1) / 2.0, unit * pixels / 2.0);
                (middle - half, middle + half)
            };
            (x, y) = (around(x, width), around(y, height));
        } else if x.0 == x.1
            || self.series.iter().any(|s| !matches!(s.mark, Mark::Line(_) | Mark::Dashed))
        {
            // Curves may touch the frame; dots may not.
            x = widen(x);
        }
        let mut svg = String::new();
        // The backend writes to a string: drawing cannot fail.
        match self.log {
            true => self.paint(&mut svg, x, (y.0..y.1).log_scale()),
            false => self.paint(&mut svg, x, y.0..y.1),
        }
        .ok()?;
        let label = super::page::escape(&self.title);
        let svg = svg.replacen("<svg ", &format!("<svg role=\"img\" aria-label=\"{label}\" "), 1);
        Some(svg)
    }

    fn paint<Y>(
        &self,
        svg: &mut String,
        x: (f64, f64),
        y: Y,
    ) -> Result<(), Box<dyn std::error::Error>>
    where
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        let root = SVGBackend::with_string(svg, self.size).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin(MARGIN)
            .margin_right(RIGHT)
            .x_label_area_size(BELOW)
            .y_label_area_size(LEFT)
            .build_cartesian_2d(x.0..x.1, y)?;
        let font = |size: u32| ("sans-serif", size).into_font().color(&INK.0);
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID.0)
            .axis_style(FAINT.0)
            .x_desc(self.x.as_str())
            .y_desc(self.y.as_str())
            .x_labels((self.size.0 / 60) as usize)
            .y_labels((self.size.1 / 32) as usize)
            .x_label_formatter(&|x| tick(*x))
            .y_label_formatter(&|y| tick(*y))
            .label_style(font(16))
            .axis_desc_style(font(17))
            .draw()?;
        for Series { colour, mark, points, .. } in &self.series {
            let colour = colour.rgb();
            let seen =
                |p: &(f64, f64)| p.0.is_finite() && p.1.is_finite() && (!self.log || p.1 > 0.0);
            let dots = points.iter().copied().filter(seen);
            let lines = points.split(|p| !seen(p)).filter(|part| !part.is_empty());
            match *mark {
                Mark::Line(width) => {
                    for part in lines {
                        let style = colour.stroke_width(width);
                        chart.draw_series(LineSeries::new(part.iter().copied(), style))?;
                    }
                }
                Mark::Dashed => {
                    for part in lines {
                        let (part, style) = (part.iter().copied(), colour.stroke_width(2));
                        chart.draw_series(DashedLineSeries::new(part, 6, 5, style))?;
                    }
                }
                Mark::Dots => {
                    let style = colour.mix(0.35).filled();
                    chart.draw_series(dots.map(|p| Circle::new(p, 2, style)))?;
                }
                Mark::Discs => {
                    chart.draw_series(dots.map(|p| Circle::new(p, 4, colour.filled())))?;
                }
                Mark::Rings => {
                    chart.draw_series(dots.map(|p| Circle::new(p, 9, colour.stroke_width(2))))?;
                }
            }
        }
        root.present()?;
        Ok(())
    }
}

fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let (low, high) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    (low <= high).then_some((low, high))
}

/// The range of the data with a margin, also if all values are equal.
fn widen((low, high): (f64, f64)) -> (f64, f64) {
    let margin = 0.04 * (high - low);
    let margin = if margin > 0.0 { margin } else { 0.5 * low.abs().max(1e-3) };
    (low - margin, high + margin)
}

/// The label of a tick: short, without rounding noise.
fn tick(value: f64) -> String {
    let size = value.abs();
    if size < 1e-12 {
        "0".into()
    } else if !(1e-3..1e5).contains(&size) {
        format!("{value:.1e}").replace(".0e", "e")
    } else {
        let text = format!("{value:.4}");
        text.trim_end_matches('0').trim_end_matches('.').to_string()
    }
}

/// The style sheet of both themes.
pub fn style() -> String {
    let css = |c: RGBColor| format!("#{:02X}{:02X}{:02X}", c.0, c.1, c.2);
    let mut names = vec![("ink".to_string(), INK), ("faint".into(), FAINT), ("grid".into(), GRID)];
    names.extend(PALETTE.iter().enumerate().map(|(k, &pair)| (format!("series-{k}"), pair)));
    let (mut light, mut dark, mut map) = (String::new(), String::new(), String::new());
    for (name, (colour, night)) in &names {
        let day = css(*colour);
        light.push_str(&format!("--{name}:{day};"));
        dark.push_str(&format!("--{name}:{night};"));
        map.push_str(&format!(
            "svg [fill=\"{day}\"]{{fill:var(--{name})}}\nsvg [stroke=\"{day}\"]{{stroke:var(--{name})}}\n"
        ));
    }
    format!(
        ":root{{{light}}}\n@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n\
         @media print{{:root{{{light}}}}}\n{map}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(log: bool, points: Vec<(f64, f64)>) -> Plot {
        let series = Series {
            label: "a <b>".into(),
            colour: Colour::Series(1),
            mark: Mark::Line(2),
            points,
        };
        Plot {
            title: "t".into(),
            x: "x".into(),
            y: "y".into(),
            log,
            equal: false,
            size: (400, 300),
            series: vec![series],
        }
    }

    #[test]
    fn every_colour_of_a_plot_has_a_theme() {
        let svg = plot(true, vec![(0.0, 1.0), (1.0, 0.01), (2.0, f64::NAN), (3.0, 1e-4)])
            .figure()
            .unwrap();
        let style = style();
        for colour in svg.split("\"#").skip(1).map(|rest| &rest[..6]) {
            assert!(
                style.contains(&format!("\"#{colour}\"")),
                "{colour} is not in the style sheet"
            );
        }
        assert!(svg.contains("a &lt;b&gt;"));
        // Only the data are drawn two pixels wide; the gap splits their line.
        assert_eq!(svg.matches("<polyline").count() - thin(&svg), 2);
    }

    fn thin(svg: &str) -> usize {
        let lines = svg.split("<polyline").skip(1).map(|rest| rest.split("/>").next().unwrap());
        lines.filter(|line| !line.contains("stroke-width=\"2\"")).count()
    }

    #[test]
    fn degenerate_data_are_drawn_or_left_out() {
        assert!(plot(false, vec![]).figure().is_none());
        assert!(plot(true, vec![(0.0, 0.0), (1.0, -1.0)]).figure().is_none());
        assert!(plot(false, vec![(1.0, 2.0)]).figure().is_some());
        assert!(plot(true, vec![(1.0, 2.0)]).figure().is_some());
        assert!(plot(false, vec![(f64::NAN, 2.0)]).figure().is_none());
    }

    #[test]
    fn ticks_are_short() {
        assert_eq!(
            ["0", "0.5", "1e-4", "2.5e5", "-3"],
            [0.0, 0.5, 1e-4, 2.5e5, -3.0].map(tick).each_ref().map(|s| s.as_str())
        );
    }
}
