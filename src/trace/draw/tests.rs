use super::*;
use crate::trace::connection::tests::{Story, ms};
use crate::trace::picture::{Gap, gaps};

fn picture() -> Picture {
    let mut story = Story::new(1);
    story.connect(0, 50_000, 7);
    for at in 1..20_000 {
        if at % 3000 > 5 {
            story.sends(at, true, 65_000);
            story.sends(at, false, 20_000);
        }
    }
    story.resends(20_000, true, 65_000);
    story.resets(20_001, true);
    let connections = story.connections.busiest(None);
    let mut found = gaps(&connections, Some(ms(5)));
    let name = |gap: &mut Gap| gap.cause = Some("kill & <run>".into());
    found.iter_mut().for_each(name);
    Picture::of("One connection", &connections, &found).unwrap()
}

#[test]
fn an_svg_is_small_and_says_what_the_picture_says() {
    let picture = picture();
    let text = svg(&picture).unwrap();
    assert!(text.len() < 60_000, "{} bytes", text.len());
    let labels = picture.whole.gaps.iter().map(|gap| {
        gap.label
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
    });
    let flags = picture.whole.flags.iter().map(|flag| flag.label.clone());
    for label in labels.chain(flags).chain([picture.title, picture.subtitle]) {
        assert!(text.contains(&label), "{label} is not in the picture");
    }
    // Two directions, and one line in each detail; axes are lines, too.
    let own = |color: &str| {
        text.matches(&format!(
            "<polyline fill=\"none\" opacity=\"1\" stroke=\"{color}\""
        ))
        .count()
    };
    assert_eq!(own("#0969DA") + own("#1A7F37"), 2 + picture.details.len());
}

/// The program uses its own font, not one of the machine.
#[test]
fn a_png_has_text_without_a_font_of_the_machine() {
    let picture = picture();
    let mut bytes = Vec::new();
    png(&picture, &mut bytes).unwrap();
    let decoder = png::Decoder::new(std::io::Cursor::new(bytes));
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    let (width, height) = size(&picture);
    assert_eq!((info.width, info.height), (2 * width, 2 * height));
    // Some pixels of the title have its color.
    let row = |y: u32| &pixels[(y * info.width * 3) as usize..][..600 * 3];
    let ink = [INK.0, INK.1, INK.2];
    let dark = (20..60).flat_map(row).copied().collect::<Vec<_>>();
    let dark = dark.chunks(3).filter(|pixel| *pixel == ink).count();
    assert!(dark > 100, "{dark} pixels of ink");
}
