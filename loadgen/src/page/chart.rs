//! Line charts as inline SVG: colours come from the page's style, so that one drawing serves light and dark.

use std::fmt::Write;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 40.0;
/// Areas that say their values when the pointer rests on them.
const HITS: usize = 56;

/// How values become lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// From 0.
    Linear,
    /// From 0, by steps that are round in units of 1,024.
    Bytes,
    /// By powers of ten.
    Log,
    /// For shares: each further nine is as wide as the last one.
    Nines,
}

/// One axis.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    pub(super) name: &'static str,
    pub(super) scale: Scale,
    pub(super) format: fn(f64) -> String,
}

/// One line.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) name: &'static str,
    pub(super) points: Vec<(f64, f64)>,
    /// Points that are few enough to be shown one by one.
    pub(super) dots: bool,
}

/// A chart with its card.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    pub(super) title: &'static str,
    pub(super) note: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) series: Vec<Series>,
}

/// From values to a position between 0 and 1, and where lines are drawn across.
struct Ruler {
    scale: Scale,
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

impl Ruler {
    fn new(scale: Scale, values: impl Iterator<Item = f64> + Clone) -> Self {
        let most = values.clone().fold(0.0, f64::max);
        match scale {
            Scale::Linear | Scale::Bytes => {
                let least = most.max(1e-9) / 4.5;
                let unit = if scale == Scale::Bytes { 1024_f64.powf(least.log(1024.0).floor().max(0.0)) } else { 1.0 };
                let step = step_of(least / unit) * unit;
                let high = (most / step).ceil().max(1.0) * step;
                let count = (high / step).round() as usize;
                Self { scale, low: 0.0, high, ticks: (0..=count).map(|index| index as f64 * step).collect() }
            }
            Scale::Log => {
                let least = values.filter(|&value| value > 0.0).fold(f64::MAX, f64::min).min(most.max(1.0));
                let (low, high) = (least.max(1e-3).log10().floor(), most.max(least * 1.01).log10().ceil());
                let high = high.max(low + 1.0);
                let ticks = (low as i32..=high as i32).map(|power| 10_f64.powi(power)).collect();
                Self { scale, low, high, ticks }
            }
            Scale::Nines => {
                let inner = values.filter(|&value| value < 1.0).fold(0.9, f64::max);
                let high = nines(inner) + 0.5; // the largest value of all stands behind the last nine
                let ticks = [0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999].into_iter();
                Self { scale, low: 0.0, high, ticks: ticks.filter(|&tick| nines(tick) <= high).collect() }
            }
        }
    }

    /// Ends where the values end instead of at a round number: for the axis along which things go on.
    fn cut(mut self, values: impl Iterator<Item = f64>) -> Self {
        let most = values.fold(0.0, f64::max);
        if self.scale == Scale::Linear && most > 0.0 {
            self.high = most;
            self.ticks.retain(|&tick| tick <= most * 1.001);
        }
        self
    }

    fn at(&self, value: f64) -> f64 {
        let value = match self.scale {
            Scale::Linear | Scale::Bytes => value,
            Scale::Log => value.max(10_f64.powf(self.low)).log10(),
            Scale::Nines => nines(value).min(self.high),
        };
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }
}

fn nines(share: f64) -> f64 {
    if share >= 1.0 { f64::INFINITY } else { -(1.0 - share).log10() }
}

/// The next of 1, 2, 5, 10, 20, ... upwards.
fn step_of(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|&step| step >= least * 0.999)
        .unwrap_or(10.0 * power)
}

impl Chart {
    /// The whole card; nothing when there is nothing to show.
    pub(super) fn html(&self) -> String {
        let points = || self.series.iter().flat_map(|series| series.points.iter().copied());
        if points().count() < 2 {
            return String::new();
        }
        let (across, up): (Vec<f64>, Vec<f64>) = points().unzip();
        let x = Ruler::new(self.x.scale, across.iter().copied()).cut(across.iter().copied());
        let y = Ruler::new(self.y.scale, up.iter().copied());
        let place = |point: (f64, f64)| (right(x.at(point.0)), down(y.at(point.1)));
        let mut out = format!("<section class=card><h2>{}</h2><p>{}</p>", self.title, self.note);
        self.legend(&mut out);
        let _ = write!(out, "<svg viewBox='0 0 {WIDTH} {HEIGHT}' role=img aria-label='{}'>", self.title);
        self.frame(&mut out, &x, &y);
        for (index, series) in self.series.iter().enumerate() {
            line(&mut out, index + 1, series, place);
        }
        self.hits(&mut out, &x);
        out.push_str("</svg></section>");
        out
    }

    fn legend(&self, out: &mut String) {
        if self.series.len() < 2 {
            return;
        }
        out.push_str("<div class=legend>");
        for (index, series) in self.series.iter().enumerate() {
            let _ = write!(out, "<span><i class=f{}></i>{}</span>", index + 1, series.name);
        }
        out.push_str("</div>");
    }

    fn frame(&self, out: &mut String, x: &Ruler, y: &Ruler) {
        for &tick in &y.ticks {
            let at = down(y.at(tick));
            let class = if tick == y.ticks[0] { "base" } else { "grid" };
            let _ = write!(
                out,
                "<path class={class} d='M{LEFT} {at:.1}H{}'/><text x={} y={:.1} text-anchor=end>{}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                at + 4.0,
                (self.y.format)(tick)
            );
        }
        for &tick in &x.ticks {
            let _ = write!(
                out,
                "<text x={:.1} y={} text-anchor=middle>{}</text>",
                right(x.at(tick)),
                HEIGHT - BOTTOM + 18.0,
                (self.x.format)(tick)
            );
        }
        let _ = write!(out, "<text x={} y={} text-anchor=end>{}</text>", WIDTH - RIGHT, HEIGHT - 4.0, self.x.name);
    }

    /// Columns over the drawing: resting on one shows the values there.
    fn hits(&self, out: &mut String, x: &Ruler) {
        let width = (WIDTH - LEFT - RIGHT) / HITS as f64;
        for column in 0..HITS {
            let middle = LEFT + width * (column as f64 + 0.5);
            let mut text = String::new();
            for series in &self.series {
                let near = |point: &&(f64, f64)| ((right(x.at(point.0)) - middle).abs() * 1e3) as u64;
                let Some(point) = series.points.iter().min_by_key(near) else { continue };
                if text.is_empty() {
                    let _ = write!(text, "{} {}", self.x.name, (self.x.format)(point.0));
                }
                let name = if series.name.is_empty() { self.y.name } else { series.name };
                let _ = write!(text, "\n{name}: {}", (self.y.format)(point.1));
            }
            let _ = write!(
                out,
                "<rect class=hit x={:.1} y={TOP} width={width:.1} height={}><title>{text}</title></rect>",
                LEFT + width * column as f64,
                HEIGHT - TOP - BOTTOM
            );
        }
    }
}

fn line(out: &mut String, class: usize, series: &Series, place: impl Fn((f64, f64)) -> (f64, f64)) {
    let _ = write!(out, "<path class='line c{class}' d='");
    for (index, &point) in series.points.iter().enumerate() {
        let (x, y) = place(point);
        let _ = write!(out, "{}{x:.1} {y:.1}", if index == 0 { 'M' } else { 'L' });
    }
    out.push_str("'/>");
    let shown = if series.dots { &series.points[..] } else { &[] };
    for &point in shown {
        let (x, y) = place(point);
        let _ = write!(out, "<circle class='dot f{class}' cx={x:.1} cy={y:.1} r=4 />");
    }
}

fn right(share: f64) -> f64 {
    LEFT + share * (WIDTH - LEFT - RIGHT)
}

fn down(share: f64) -> f64 {
    HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_reach_over_the_values() {
        let ruler = Ruler::new(Scale::Linear, [3.0, 87.0].into_iter());
        assert_eq!(
            (ruler.ticks.clone(), ruler.at(0.0), ruler.at(100.0)),
            (vec![0.0, 20.0, 40.0, 60.0, 80.0, 100.0], 0.0, 1.0)
        );
        let ruler = Ruler::new(Scale::Log, [30.0, 8700.0].into_iter());
        assert_eq!(
            (ruler.ticks.clone(), ruler.at(10.0), ruler.at(10_000.0)),
            (vec![10.0, 100.0, 1000.0, 10_000.0], 0.0, 1.0)
        );
        let ruler = Ruler::new(Scale::Nines, [0.0, 0.5, 0.999, 1.0].into_iter());
        assert!(ruler.at(0.99) < ruler.at(0.999) && ruler.at(0.999) < ruler.at(1.0) && ruler.at(1.0) <= 1.0);
        assert_eq!(Ruler::new(Scale::Linear, [0.0].into_iter()).at(0.0), 0.0);
        let mib = 1_048_576.0;
        assert_eq!(Ruler::new(Scale::Bytes, [7.0 * mib].into_iter()).ticks[1], 2.0 * mib);
        let cut = Ruler::new(Scale::Linear, [11.0].into_iter()).cut([11.0].into_iter());
        assert_eq!((cut.ticks, cut.high), (vec![0.0, 5.0, 10.0], 11.0));
    }
}
