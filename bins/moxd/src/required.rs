//! `[sandbox] require`: walls that must stand, or the server does not start.
//!
//! Only a process itself knows how its walls stand, and by then it is confined; so it says so by
//! the code it ends with. Before everything has served once, that ends the server, which says what
//! is missing; later it is a fault like another, and the rest goes on.

use config::Static;
use sandbox::Layer;

use crate::tree::{Key, Tree, name};

/// The layers that must stand, as a process is told.
pub(crate) fn bits(settings: &Static) -> u16 {
    let names =
        config::Layer::ALL.into_iter().filter(|(_, layer)| settings.require.contains(layer));
    let layers = names.filter_map(|(name, _)| name.parse().ok());
    layers.fold(0, |bits, layer| bits | daemon::layer_bit(layer))
}

/// Whether a layer must stand.
pub(crate) fn names(settings: &Static, layer: Layer) -> bool {
    bits(settings) & daemon::layer_bit(layer) != 0
}

/// What is said of a process that must not run.
pub(crate) fn refusal(key: Key, layer: Layer) -> String {
    format!(
        "{} lacks the wall {layer}, or has only part of it, and [sandbox] require names it; its log \
         says why",
        name(key)
    )
}

/// Why these settings cannot be applied: a process that serves lacks what they ask for, and so
/// would the one in its place.
pub(crate) fn lacking(tree: &Tree, settings: &Static) -> Option<String> {
    let serving = tree.slots.iter().filter_map(|(key, slot)| Some((*key, slot.now.as_ref()?)));
    let serving = serving.filter(|(_, running)| running.ready.is_some());
    serving
        .flat_map(|(key, running)| {
            standing(running.layers).map(move |(layer, all)| (key, layer, all))
        })
        .find(|(_, layer, all)| !all && names(settings, *layer))
        .map(|(key, layer, _)| refusal(key, layer))
}

/// Each layer and whether all of it stands, from the bits of `daemon::Report::Ready`.
fn standing(bits: u32) -> impl Iterator<Item = (Layer, bool)> {
    (0u32..).zip(Layer::ALL).map(move |(at, layer)| (layer, bits >> (2 * at) & 3 == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layer_can_be_required_and_none_by_another_name() {
        let configured: Vec<Layer> =
            config::Layer::ALL.iter().map(|(name, _)| name.parse().unwrap()).collect();
        assert_eq!(configured, Layer::ALL);
        let listed = config::Layer::ALL.map(|(name, _)| format!("{name:?}")).join(", ");
        let text = format!(
            "hostname = \"a.example\"\n[sandbox]\nrequire = [{listed}]\n[listener.x]\n\
             ips = [\"127.0.0.1\"]\nsmtp = {{}}\n"
        );
        let settings = Static::parse(&text, "mox.toml").unwrap();
        assert!(Layer::ALL.into_iter().all(|layer| names(&settings, layer)));
        let only = Static { require: [config::Layer::Landlock].into(), ..settings };
        assert!(Layer::ALL.into_iter().all(|l| names(&only, l) == (l == Layer::Landlock)));
    }

    #[test]
    fn a_layer_stands_that_is_whole() {
        let bits = 1 << 2 | 2 << 16;
        let gaps: Vec<Layer> = standing(bits).filter(|(_, all)| !all).map(|(l, _)| l).collect();
        assert_eq!(gaps, [Layer::Capabilities, Layer::Landlock]);
    }
}
