//! The Access Denied banner: a padlock and thirteen letters from lines and arcs, smooth at every size.
//!
//! Each stroke is drawn by its distance to the pixel's centre (a signed distance field), so no font is needed.

/// The banner's ground: the mean of the data area below it.
pub(crate) const GROUND: [u8; 3] = [0x28; 3];
const RED: [u8; 3] = [0xe5, 0x48, 0x4d];
const WHITE: [u8; 3] = [0xf2, 0xf2, 0xf3];
const FRAME: [u8; 3] = [0x46, 0x46, 0x4a];

type Point = (f32, f32);

#[derive(Clone, Copy, Debug)]
enum Shape {
    /// From one point to another.
    Line(Point, Point),
    /// Centre, radius, and the angles in degrees between which it is drawn, clockwise from the right.
    Arc(Point, f32, (f32, f32)),
    /// Centre, half of width and height, radius of the corners; filled by a stroke of any width.
    Plate(Point, Point, f32),
    /// The outline of such a plate.
    Outline(Point, Point, f32),
}

fn length((x, y): Point) -> f32 {
    x.hypot(y)
}

fn plate_distance((x, y): Point, centre: Point, half: Point, radius: f32) -> f32 {
    let outside = ((x - centre.0).abs() - half.0 + radius, (y - centre.1).abs() - half.1 + radius);
    length((outside.0.max(0.0), outside.1.max(0.0))) + outside.0.max(outside.1).min(0.0) - radius
}

impl Shape {
    fn distance(&self, point: Point) -> f32 {
        match *self {
            Shape::Line(a, b) => {
                let (along, from) = ((b.0 - a.0, b.1 - a.1), (point.0 - a.0, point.1 - a.1));
                let square = along.0 * along.0 + along.1 * along.1;
                let part = ((from.0 * along.0 + from.1 * along.1) / square.max(f32::MIN_POSITIVE)).clamp(0.0, 1.0);
                length((from.0 - part * along.0, from.1 - part * along.1))
            }
            Shape::Arc(centre, radius, (from, to)) => {
                let (x, y) = (point.0 - centre.0, point.1 - centre.1);
                let turned = (y.atan2(x).to_degrees() - from).rem_euclid(360.0);
                if turned <= to - from {
                    return (length((x, y)) - radius).abs();
                }
                let end = |angle: f32| {
                    let (sine, cosine) = angle.to_radians().sin_cos();
                    length((x - radius * cosine, y - radius * sine))
                };
                end(from).min(end(to))
            }
            Shape::Plate(centre, half, radius) => plate_distance(point, centre, half, radius),
            Shape::Outline(centre, half, radius) => plate_distance(point, centre, half, radius).abs(),
        }
    }

    /// Left, top, right, bottom.
    fn bounds(&self) -> (f32, f32, f32, f32) {
        match *self {
            Shape::Line(a, b) => (a.0.min(b.0), a.1.min(b.1), a.0.max(b.0), a.1.max(b.1)),
            Shape::Arc(c, r, _) => (c.0 - r, c.1 - r, c.0 + r, c.1 + r),
            Shape::Plate(c, half, _) | Shape::Outline(c, half, _) => {
                (c.0 - half.0, c.1 - half.1, c.0 + half.0, c.1 + half.1)
            }
        }
    }

    fn scaled(self, scale: f32, (x, y): Point) -> Shape {
        let place = |(px, py): Point| (px * scale + x, py * scale + y);
        match self {
            Shape::Line(a, b) => Shape::Line(place(a), place(b)),
            Shape::Arc(c, r, angles) => Shape::Arc(place(c), r * scale, angles),
            Shape::Plate(c, half, r) => Shape::Plate(place(c), (half.0 * scale, half.1 * scale), r * scale),
            Shape::Outline(c, half, r) => Shape::Outline(place(c), (half.0 * scale, half.1 * scale), r * scale),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Stroke {
    shape: Shape,
    /// Half of its width.
    half: f32,
    colour: [u8; 3],
}

/// Width of a letter and its strokes; letters are 1 high.
fn letter(letter: char) -> (f32, Vec<Shape>) {
    use Shape::{Arc, Line};
    match letter {
        'A' => (
            0.72,
            vec![Line((0.0, 1.0), (0.36, 0.0)), Line((0.36, 0.0), (0.72, 1.0)), Line((0.12, 0.68), (0.60, 0.68))],
        ),
        'C' => (
            0.66,
            vec![
                Arc((0.33, 0.33), 0.33, (180.0, 335.0)),
                Line((0.0, 0.33), (0.0, 0.67)),
                Arc((0.33, 0.67), 0.33, (25.0, 180.0)),
            ],
        ),
        'D' => (
            0.66,
            vec![
                Line((0.0, 0.0), (0.0, 1.0)),
                Line((0.0, 0.0), (0.30, 0.0)),
                Arc((0.30, 0.36), 0.36, (270.0, 360.0)),
                Line((0.66, 0.36), (0.66, 0.64)),
                Arc((0.30, 0.64), 0.36, (0.0, 90.0)),
                Line((0.30, 1.0), (0.0, 1.0)),
            ],
        ),
        'E' => (
            0.54,
            vec![
                Line((0.0, 0.0), (0.0, 1.0)),
                Line((0.0, 0.0), (0.54, 0.0)),
                Line((0.0, 0.5), (0.46, 0.5)),
                Line((0.0, 1.0), (0.54, 1.0)),
            ],
        ),
        'I' => (0.0, vec![Line((0.0, 0.0), (0.0, 1.0))]),
        'N' => {
            (0.66, vec![Line((0.0, 1.0), (0.0, 0.0)), Line((0.0, 0.0), (0.66, 1.0)), Line((0.66, 1.0), (0.66, 0.0))])
        }
        'S' => (
            0.62,
            vec![
                Arc((0.37, 0.25), 0.25, (270.0, 350.0)),
                Line((0.37, 0.0), (0.25, 0.0)),
                Arc((0.25, 0.25), 0.25, (90.0, 270.0)),
                Line((0.25, 0.5), (0.37, 0.5)),
                Arc((0.37, 0.75), 0.25, (-90.0, 90.0)),
                Line((0.37, 1.0), (0.25, 1.0)),
                Arc((0.25, 0.75), 0.25, (90.0, 170.0)),
            ],
        ),
        _ => (0.30, Vec::new()),
    }
}

/// The banner at one size: twice as wide as it is high.
#[derive(Debug)]
pub(crate) struct Drawing {
    strokes: Vec<Stroke>,
}

impl Drawing {
    /// The banner `width` pixels wide and half as high.
    pub fn new(width: u32) -> Self {
        let unit = width as f32 / 2.0;
        let mut strokes = vec![
            Stroke { shape: Shape::Outline((1.0, 0.5), (0.94, 0.44), 0.06), half: 0.0045, colour: FRAME },
            // The padlock: shackle, body, keyhole.
            Stroke { shape: Shape::Arc((1.0, 0.275), 0.105, (180.0, 360.0)), half: 0.024, colour: RED },
            Stroke { shape: Shape::Line((0.895, 0.275), (0.895, 0.37)), half: 0.024, colour: RED },
            Stroke { shape: Shape::Line((1.105, 0.275), (1.105, 0.37)), half: 0.024, colour: RED },
            Stroke { shape: Shape::Plate((1.0, 0.455), (0.175, 0.125), 0.03), half: 0.0, colour: RED },
            Stroke { shape: Shape::Line((1.0, 0.435), (1.0, 0.4352)), half: 0.032, colour: GROUND },
            Stroke { shape: Shape::Line((1.0, 0.435), (1.0, 0.505)), half: 0.014, colour: GROUND },
        ];
        let (high, gap) = (0.135, 0.34);
        let letters: Vec<_> = "ACCESS DENIED".chars().map(letter).collect();
        let wide: f32 = letters.iter().map(|(width, _)| width + gap).sum::<f32>() - gap;
        let mut x = 1.0 - wide * high / 2.0;
        for (width, shapes) in letters {
            let placed = shapes.into_iter().map(|shape| shape.scaled(high, (x, 0.695)));
            strokes.extend(placed.map(|shape| Stroke { shape, half: 0.0125, colour: WHITE }));
            x += (width + gap) * high;
        }
        for stroke in &mut strokes {
            stroke.shape = stroke.shape.scaled(unit, (0.0, 0.0));
            stroke.half *= unit;
        }
        Drawing { strokes }
    }

    /// Draws row `y`, RGB.
    pub fn row(&self, y: u32, row: &mut [u8]) {
        let width = row.len() / 3;
        row.as_chunks_mut::<3>().0.fill(GROUND);
        let y = y as f32 + 0.5;
        for stroke in &self.strokes {
            let (left, top, right, bottom) = stroke.shape.bounds();
            let reach = stroke.half + 1.0;
            if y < top - reach || y > bottom + reach {
                continue;
            }
            let from = (left - reach).max(0.0) as usize;
            let to = ((right + reach) as usize + 1).min(width);
            for (x, pixel) in row.as_chunks_mut::<3>().0.iter_mut().enumerate().take(to).skip(from) {
                let covered = (stroke.half + 0.5 - stroke.shape.distance((x as f32 + 0.5, y))).clamp(0.0, 1.0);
                if covered > 0.0 {
                    for (sample, colour) in pixel.iter_mut().zip(stroke.colour) {
                        let mixed = f32::from(*sample) * (1.0 - covered) + f32::from(colour) * covered;
                        *sample = mixed.round() as u8;
                    }
                }
            }
        }
    }
}
