//! Walls that a process must not run without: how it is told, and how it says that one does not
//! stand. The supervisor hears no text of a process, so that is a code to end with.

use sandbox::Layer;

/// The code for the first layer; those of the others follow. None that a shell, a panic, a signal
/// or [`crate::PairFault`] gives.
const FIRST: u8 = 110;

fn index(layer: Layer) -> u8 {
    let at = Layer::ALL.iter().position(|other| *other == layer);
    at.and_then(|at| u8::try_from(at).ok()).expect("all layers are in the list of all")
}

/// The layer's bit in [`crate::supervision::Start`].
#[must_use]
pub fn layer_bit(layer: Layer) -> u16 {
    1 << index(layer)
}

/// The layers whose bits are set.
pub(crate) fn layers_of(bits: u16) -> Vec<Layer> {
    Layer::ALL.into_iter().filter(|layer| bits & layer_bit(*layer) != 0).collect()
}

/// How a process ends that was to have this layer and has not.
pub(crate) fn code(layer: Layer) -> u8 {
    FIRST + index(layer)
}

/// The layer that a process ended for.
#[must_use]
pub fn missing_layer(code: i32) -> Option<Layer> {
    Layer::ALL.into_iter().find(|layer| i32::from(self::code(*layer)) == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_layer_has_a_bit_and_a_code_of_its_own() {
        for layer in Layer::ALL {
            assert_eq!(layers_of(layer_bit(layer)), [layer]);
            assert_eq!(missing_layer(code(layer).into()), Some(layer));
            assert_eq!(crate::PairFault::from_code(code(layer).into()), None);
        }
        assert_eq!(layers_of(u16::MAX), Layer::ALL);
        assert!(layers_of(0).is_empty());
        for code in [-1, 0, 1, 2, crate::BAD_FILE.into(), 101, 126, 127, 137] {
            assert_eq!(missing_layer(code), None, "{code}");
        }
    }
}
