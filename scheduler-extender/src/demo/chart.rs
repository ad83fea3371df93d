//! Charts as inline SVG: colours by class, so that the page's style decides light and dark.

use std::fmt::Write as _;

/// A band or a line of a chart.
#[derive(Clone, Debug)]
pub(super) struct Series {
    /// Its name in legend and tooltips.
    pub(super) name: String,
    /// CSS class with its colour.
    pub(super) class: String,
    /// One value per point of the chart.
    pub(super) values: Vec<f64>,
}

/// What all charts of the page share.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    /// Unique in the page; prefix of the ids that accessibility needs.
    pub(super) id: &'static str,
    /// What it shows, in a few words.
    pub(super) title: String,
    /// What one sees in it, for those who do not see it.
    pub(super) description: String,
    /// Seconds since the beginning, one per point, rising.
    pub(super) seconds: Vec<f64>,
    /// Prints a value of the vertical axis.
    pub(super) unit: fn(f64) -> String,
    /// A horizontal line with its name: the limit.
    pub(super) limit: Option<(f64, String)>,
}

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 32.0;
/// Tooltips for each point would make the page heavy; so many are enough to read every value.
const TOOLTIPS_MAX: usize = 120;

// === impl Chart ===

impl Chart {
    /// Bands on top of each other, the first at the bottom.
    pub(super) fn stacked(&self, series: &[Series]) -> String {
        let points = self.seconds.len();
        let mut floor = vec![0.0; points];
        let mut bands = String::new();
        let mut names = String::new();
        let top = (0..points).map(|point| series.iter().map(|one| one.values[point]).sum::<f64>()).fold(0.0, f64::max);
        let scale = round_up(top);
        for one in series {
            let ceiling: Vec<f64> = floor.iter().zip(&one.values).map(|(floor, value)| floor + value).collect();
            let mut path = self.path(&ceiling, scale, "M");
            for (point, value) in floor.iter().enumerate().rev() {
                write!(path, "L{:.1} {:.1}", self.x(self.seconds[point]), y(*value, scale)).ok();
            }
            writeln!(bands, "<path class=\"band {}\" d=\"{path}Z\"/>", one.class).ok();
            self.name_band(&mut names, one, &floor, scale);
            floor = ceiling;
        }
        bands.push_str(&names);
        self.frame(scale, &bands, series)
    }

    /// Writes a band's name where the band is widest for the whole text: colours alone are not for everybody.
    fn name_band(&self, out: &mut String, one: &Series, floor: &[f64], scale: f64) {
        const HALF_TEXT: f64 = 64.0;
        const LINE: f64 = 18.0;
        let places: Vec<f64> = self.seconds.iter().map(|seconds| self.x(*seconds)).collect();
        let mut best: Option<(f64, f64, f64)> = None;
        for x in places.iter().copied().filter(|x| (LEFT + HALF_TEXT..WIDTH - RIGHT - HALF_TEXT).contains(x)) {
            let from = places.partition_point(|place| *place < x - HALF_TEXT);
            let to = places.partition_point(|place| *place <= x + HALF_TEXT);
            let lowest = (from..to).map(|point| floor[point]).fold(0.0, f64::max);
            let highest = (from..to).map(|point| floor[point] + one.values[point]).fold(f64::MAX, f64::min);
            let clear = y(lowest, scale) - y(highest, scale);
            if clear >= best.map_or(LINE, |(most, _, _)| most + 0.5) {
                best = Some((clear, x, lowest.midpoint(highest)));
            }
        }
        let Some((_, x, middle)) = best else { return };
        let middle = y(middle, scale) + 4.5;
        writeln!(
            out,
            "<text class=\"band-name\" x=\"{x:.1}\" y=\"{middle:.1}\" text-anchor=\"middle\">{}</text>",
            escape(&one.name)
        )
        .ok();
    }

    /// Lines over each other.
    pub(super) fn lines(&self, series: &[Series]) -> String {
        let top = series.iter().flat_map(|one| &one.values).copied().fold(0.0, f64::max);
        // Room above the limit, for its name and for what would exceed it.
        let scale = round_up(top.max(self.limit.as_ref().map_or(0.0, |(limit, _)| *limit * 1.15)));
        let mut paths = String::new();
        for one in series {
            writeln!(paths, "<path class=\"line {}\" d=\"{}\"/>", one.class, self.path(&one.values, scale, "M")).ok();
        }
        self.frame(scale, &paths, series)
    }

    fn span(&self) -> f64 {
        self.seconds.last().copied().unwrap_or(0.0).max(1.0)
    }

    fn x(&self, seconds: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * seconds / self.span()
    }

    fn path(&self, values: &[f64], scale: f64, first: &str) -> String {
        let mut path = String::new();
        for (point, value) in values.iter().enumerate() {
            let command = if point == 0 { first } else { "L" };
            write!(path, "{command}{:.1} {:.1}", self.x(self.seconds[point]), y(*value, scale)).ok();
        }
        path
    }

    /// Axes, marks, tooltips and names around what was drawn.
    fn frame(&self, scale: f64, drawing: &str, series: &[Series]) -> String {
        let id = self.id;
        let mut out = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"{id}-title {id}-description\">\n\
             <title id=\"{id}-title\">{}</title>\n<desc id=\"{id}-description\">{}</desc>\n",
            escape(&self.title),
            escape(&self.description)
        );
        for step in 0..=4_u32 {
            let value = scale * f64::from(step) / 4.0;
            let at = y(value, scale);
            writeln!(out, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{}\"/>", WIDTH - RIGHT).ok();
            writeln!(
                out,
                "<text class=\"mark\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                at + 4.0,
                (self.unit)(value)
            )
            .ok();
        }
        let step = time_step(self.span());
        let mut at = 0.0;
        while at <= self.span() {
            writeln!(
                out,
                "<text class=\"mark\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                self.x(at),
                HEIGHT - 10.0,
                clock(at)
            )
            .ok();
            at += step;
        }
        out.push_str(drawing);
        if let Some((limit, name)) = &self.limit {
            let at = y(*limit, scale);
            writeln!(out, "<path class=\"limit\" d=\"M{LEFT} {at:.1}H{}\"/>", WIDTH - RIGHT).ok();
            writeln!(out, "<text class=\"limit-name\" x=\"{}\" y=\"{:.1}\">{}</text>", LEFT + 8.0, at - 6.0, escape(name)).ok();
        }
        self.tooltips(&mut out, series);
        out.push_str("</svg>\n");
        out
    }

    /// Invisible columns whose title shows the values under the pointer; no script needed.
    fn tooltips(&self, out: &mut String, series: &[Series]) {
        let stride = self.seconds.len().div_ceil(TOOLTIPS_MAX).max(1);
        let places: Vec<usize> = (0..self.seconds.len()).step_by(stride).collect();
        for (order, point) in places.iter().enumerate() {
            let from = self.x(self.seconds[*point]);
            let to = places.get(order + 1).map_or(WIDTH - RIGHT, |next| self.x(self.seconds[*next]));
            let mut text = clock(self.seconds[*point]);
            for one in series.iter().rev() {
                write!(text, "\n{}: {}", one.name, (self.unit)(one.values[*point])).ok();
            }
            writeln!(
                out,
                "<rect class=\"probe\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{}\"><title>{}</title></rect>",
                (to - from).max(0.5),
                HEIGHT - TOP - BOTTOM,
                escape(&text)
            )
            .ok();
        }
    }
}

/// A round number at or above `top` that four steps divide.
fn round_up(top: f64) -> f64 {
    let magnitude = 10_f64.powf(top.max(1e-9).log10().floor());
    let steps = [1.0, 1.2, 1.6, 2.0, 2.4, 3.2, 4.0, 5.0, 6.0, 8.0, 10.0];
    steps.into_iter().map(|step| step * magnitude).find(|scale| *scale >= top).unwrap_or(10.0 * magnitude)
}

fn y(value: f64, scale: f64) -> f64 {
    HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / scale
}

/// Marks of the time axis: at most ten, at times that people count in.
fn time_step(span: f64) -> f64 {
    let steps = [1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 21600.0, 86400.0];
    steps.into_iter().find(|step| span / step <= 10.0).unwrap_or(span.max(1.0))
}

fn clock(seconds: f64) -> String {
    let minutes = (seconds / 60.0).floor();
    format!("{minutes:.0}:{:02.0}", (seconds - minutes * 60.0).floor())
}

/// Text for HTML: names come from manifests of strangers.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(letter),
        }
    }
    out
}
