//! Draws a [`Picture`]. The font is a part of the program, so that the machine needs none.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Once;

use anyhow::Context as _;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::connection::Event;
use super::picture::{Panel, Picture, Shade};
use super::words;

#[cfg(test)]
mod tests;

const FONT: &[u8] = include_bytes!("font/DejaVuSans.ttf");
const FAMILY: &str = "sans-serif";
/// Pixels, before the scale.
const WIDTH: u32 = 1000;
const WHOLE_HEIGHT: u32 = 470;
const DETAIL_HEIGHT: u32 = 170;
const ROW_HEIGHT: u32 = 16;
const HEAD_HEIGHT: u32 = 62;
const Y_LABELS_WIDTH: u32 = 70;
const TEXT: u32 = 15;
const SMALL_TEXT: u32 = 13;
/// The smallest width of a shade.
const SHADE_WIDTH: f64 = 2.0;
/// The scale of a bitmap, for screens of high resolution.
const PNG_SCALE: u32 = 2;

const INK: RGBColor = RGBColor(36, 41, 47);
const PALE_INK: RGBColor = RGBColor(110, 118, 129);
const SERVER: RGBColor = RGBColor(9, 105, 218);
const CLIENT: RGBColor = RGBColor(26, 127, 55);
const SHADE: RGBColor = RGBColor(251, 143, 68);
const RESENT: RGBColor = RGBColor(188, 76, 0);
const BAD: RGBColor = RGBColor(207, 34, 46);

type Chart<'a, 'b, DB> = ChartContext<'a, DB, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Draws the picture as SVG.
///
/// # Errors
/// It cannot be drawn.
pub fn svg(picture: &Picture) -> anyhow::Result<String> {
    let mut text = String::new();
    let backend = SVGBackend::with_string(&mut text, size(picture));
    draw(picture, backend, 1)?;
    Ok(text)
}

/// Draws the picture as PNG.
///
/// # Errors
/// The picture cannot be drawn or written.
pub fn png(picture: &Picture, to: impl Write) -> anyhow::Result<()> {
    let (width, height) = size(picture);
    let (width, height) = (width * PNG_SCALE, height * PNG_SCALE);
    let mut pixels = vec![0; (width * height * 3) as usize];
    let backend = BitMapBackend::with_buffer(&mut pixels, (width, height));
    draw(picture, backend, PNG_SCALE)?;
    let mut encoder = png::Encoder::new(to, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&pixels)?;
    writer.finish()?;
    Ok(())
}

/// Writes the picture to a file, as PNG if its name ends in `.png`, else as SVG.
///
/// # Errors
/// The picture cannot be drawn or written.
pub fn save(picture: &Picture, path: &Path) -> anyhow::Result<()> {
    let is_png = path
        .extension()
        .is_some_and(|kind| kind.eq_ignore_ascii_case("png"));
    let write = || {
        if !is_png {
            return Ok(std::fs::write(path, svg(picture)?)?);
        }
        let mut file = BufWriter::new(File::create(path)?);
        png(picture, &mut file)?;
        Ok::<(), anyhow::Error>(file.flush()?)
    };
    write().with_context(|| path.display().to_string())
}

fn rows(picture: &Picture) -> u32 {
    let rows = picture.whole.gaps.iter().map(|gap| gap.row as u32 + 1);
    rows.max().unwrap_or(0)
}

fn size(picture: &Picture) -> (u32, u32) {
    let details = match picture.details.is_empty() {
        true => 0,
        false => DETAIL_HEIGHT,
    };
    (WIDTH, WHOLE_HEIGHT + rows(picture) * ROW_HEIGHT + details)
}

fn register_font() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // The font is a part of this program; a test draws with it.
        let _ = plotters::style::register_font(FAMILY, FontStyle::Normal, FONT);
    });
}

fn draw<DB: DrawingBackend>(picture: &Picture, backend: DB, scale: u32) -> anyhow::Result<()>
where
    DB::ErrorType: 'static,
{
    register_font();
    let root = backend.into_drawing_area();
    root.fill(&WHITE)?;
    let pen = Pen { scale };
    let height = WHOLE_HEIGHT + rows(picture) * ROW_HEIGHT;
    let (whole, details) = root.split_vertically(pen.px(height));
    pen.head(picture, &whole)?;
    pen.whole(picture, &whole)?;
    if !picture.details.is_empty() {
        // One or two panels do not fill the whole width.
        let columns = picture.details.len().max(4);
        let parts = details.split_evenly((1, columns));
        for (panel, area) in picture.details.iter().zip(&parts) {
            pen.detail(panel, area)?;
        }
    }
    root.present()?;
    Ok(())
}

/// The context of drawing.
struct Pen {
    /// Pixels of the picture for one unit.
    scale: u32,
}

impl Pen {
    fn px(&self, length: u32) -> u32 {
        length * self.scale
    }

    fn at(&self, x: u32, y: u32) -> (i32, i32) {
        (self.px(x) as i32, self.px(y) as i32)
    }

    fn text(&self, height: u32, color: RGBColor, anchor: Pos) -> TextStyle<'static> {
        let mut style = TextStyle::from((FAMILY, self.px(height)).into_font()).pos(anchor);
        style.color = color.to_backend_color();
        style
    }

    fn head<DB: DrawingBackend>(
        &self,
        picture: &Picture,
        area: &DrawingArea<DB, Shift>,
    ) -> anyhow::Result<()>
    where
        DB::ErrorType: 'static,
    {
        let left = Pos::new(HPos::Left, VPos::Top);
        area.draw_text(&picture.title, &self.text(20, INK, left), self.at(14, 10))?;
        let pale = self.text(TEXT, PALE_INK, left);
        area.draw_text(&picture.subtitle, &pale, self.at(14, 36))?;
        let right = Pos::new(HPos::Right, VPos::Top);
        let mut legend = vec![];
        for (from_server, name, color) in [
            (true, "from the server", SERVER),
            (false, "from the client", CLIENT),
        ] {
            let is_drawn = |line: &super::picture::Line| line.from_server == from_server;
            if picture.whole.lines.iter().any(is_drawn) {
                legend.push((name, color));
            }
        }
        if !picture.whole.resent.is_empty() {
            legend.push(("sent again", RESENT));
        }
        for (row, (name, color)) in legend.into_iter().enumerate() {
            let place = self.at(WIDTH - 20, 8 + row as u32 * 17);
            area.draw_text(name, &self.text(TEXT, color, right), place)?;
        }
        Ok(())
    }

    fn whole<DB: DrawingBackend>(
        &self,
        picture: &Picture,
        area: &DrawingArea<DB, Shift>,
    ) -> anyhow::Result<()>
    where
        DB::ErrorType: 'static,
    {
        let panel = &picture.whole;
        let rows = rows(picture);
        let mut chart = ChartBuilder::on(area)
            .margin_top(self.px(HEAD_HEIGHT + rows * ROW_HEIGHT))
            .margin_right(self.px(20))
            .margin_bottom(self.px(6))
            .x_label_area_size(self.px(40))
            .y_label_area_size(self.px(Y_LABELS_WIDTH))
            .build_cartesian_2d(
                panel.seconds.0..panel.seconds.1,
                panel.bytes.0..panel.bytes.1,
            )?;
        self.shades(panel, &mut chart)?;
        chart
            .configure_mesh()
            .disable_mesh()
            .x_desc("seconds")
            .axis_style(PALE_INK)
            .axis_desc_style(self.text(TEXT, PALE_INK, Pos::default()))
            .label_style(self.text(TEXT, INK, Pos::default()))
            .y_labels(8)
            .y_label_formatter(&|offset| words::bytes(*offset as u64))
            .draw()?;
        self.lines(panel, &mut chart)?;
        let dots = panel.resent.iter();
        chart.draw_series(dots.map(|dot| Circle::new(*dot, self.px(2), RESENT.filled())))?;
        self.flags(panel, &mut chart)?;
        let top = |shade: &Shade| {
            let middle = (shade.seconds.0 + shade.seconds.1) / 2.0;
            let (x, y) = chart.backend_coord(&(middle, panel.bytes.1));
            (
                x,
                y - self.px(4 + (rows - 1 - shade.row as u32) * ROW_HEIGHT) as i32,
            )
        };
        for shade in &panel.gaps {
            let place = top(shade);
            let style = self.text(SMALL_TEXT, RESENT, self.anchor(place.0, VPos::Bottom));
            area.draw_text(&shade.label, &style, place)?;
        }
        Ok(())
    }

    /// Returns the anchor of a text, so that a text near an edge stays within the picture.
    fn anchor(&self, x: i32, vertical: VPos) -> Pos {
        let edge = self.px(70) as i32;
        let horizontal = match x {
            x if x < edge => HPos::Left,
            x if x > self.px(WIDTH) as i32 - edge => HPos::Right,
            _ => HPos::Center,
        };
        Pos::new(horizontal, vertical)
    }

    fn detail<DB: DrawingBackend>(
        &self,
        panel: &Panel,
        area: &DrawingArea<DB, Shift>,
    ) -> anyhow::Result<()>
    where
        DB::ErrorType: 'static,
    {
        let center = Pos::new(HPos::Center, VPos::Top);
        let (width, _) = area.dim_in_pixel();
        let place = (width as i32 / 2, self.px(4) as i32);
        area.draw_text(&panel.title, &self.text(SMALL_TEXT, RESENT, center), place)?;
        let mut chart = ChartBuilder::on(area)
            .margin_top(self.px(22))
            .margin_left(self.px(12))
            .margin_right(self.px(12))
            .margin_bottom(self.px(6))
            .x_label_area_size(self.px(26))
            .build_cartesian_2d(
                panel.seconds.0..panel.seconds.1,
                panel.bytes.0..panel.bytes.1,
            )?;
        self.shades(panel, &mut chart)?;
        let begin = panel
            .gaps
            .first()
            .map_or(panel.seconds.0, |gap| gap.seconds.0);
        chart
            .configure_mesh()
            .disable_mesh()
            .disable_y_axis()
            .axis_style(PALE_INK)
            .label_style(self.text(SMALL_TEXT, PALE_INK, Pos::default()))
            .x_labels(3)
            .x_label_formatter(&|at| format!("{:+.0} ms", (at - begin) * 1e3))
            .draw()?;
        self.lines(panel, &mut chart)
    }

    fn shades<DB: DrawingBackend>(
        &self,
        panel: &Panel,
        chart: &mut Chart<'_, '_, DB>,
    ) -> anyhow::Result<()>
    where
        DB::ErrorType: 'static,
    {
        let (width, _) = chart.plotting_area().dim_in_pixel();
        let per_pixel = (panel.seconds.1 - panel.seconds.0) / f64::from(width.max(1));
        let least = per_pixel * SHADE_WIDTH * f64::from(self.scale);
        let boxes = panel.gaps.iter().map(|gap| {
            let (from, until) = gap.seconds;
            let corners = [
                (from, panel.bytes.0),
                (until.max(from + least), panel.bytes.1),
            ];
            Rectangle::new(corners, SHADE.mix(0.35).filled())
        });
        chart.draw_series(boxes)?;
        Ok(())
    }

    fn lines<DB: DrawingBackend>(
        &self,
        panel: &Panel,
        chart: &mut Chart<'_, '_, DB>,
    ) -> anyhow::Result<()>
    where
        DB::ErrorType: 'static,
    {
        for line in &panel.lines {
            let color = if line.from_server { SERVER } else { CLIENT };
            let style = color.stroke_width(self.px(2));
            chart.draw_series(LineSeries::new(line.points.iter().copied(), style))?;
        }
        Ok(())
    }

    fn flags<DB: DrawingBackend>(
        &self,
        panel: &Panel,
        chart: &mut Chart<'_, '_, DB>,
    ) -> anyhow::Result<()>
    where
        DB::ErrorType: 'static,
    {
        for flag in &panel.flags {
            let color = if flag.is_bad { BAD } else { PALE_INK };
            let place = (flag.seconds, flag.offset);
            match flag.event {
                Event::Syn | Event::SynAgain => {
                    let mark = TriangleMarker::new(place, self.px(4), color.filled());
                    chart.draw_series([mark])?;
                }
                Event::Fin | Event::Reset => {
                    let mark = Cross::new(place, self.px(6), color.stroke_width(self.px(3)));
                    chart.draw_series([mark])?;
                }
            }
            let (x, y) = chart.backend_coord(&place);
            // The label is above a beginning, which is at the bottom, and below an end, which is at the top of its
            // line.
            let (vertical, distance) = match flag.event {
                Event::Syn | Event::SynAgain => (VPos::Bottom, -(self.px(8) as i32)),
                Event::Fin | Event::Reset => (VPos::Top, self.px(10) as i32),
            };
            let horizontal = match x > self.px(WIDTH / 2) as i32 {
                true => HPos::Right,
                false => HPos::Left,
            };
            let style = self.text(SMALL_TEXT, color, Pos::new(horizontal, vertical));
            let (left, top) = chart.plotting_area().get_base_pixel();
            let place = (x - left, y + distance - top);
            let area = chart.plotting_area().strip_coord_spec();
            area.draw_text(&flag.label, &style, place)?;
        }
        Ok(())
    }
}
