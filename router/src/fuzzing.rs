//! What fuzz targets look at beside the interface. Only there with the feature `fuzzing`.

use crate::lexer::{self, Cut, Literals};
use crate::statement::Literal;

/// The literals that the lexer finds in a text, and the highest `$n`; `None` where it is not sure.
pub fn lex(text: &[u8]) -> Option<(Vec<Literal>, u16)> {
    let (mut buffer, mut literals) = (Vec::new(), Literals::new());
    let lexed = lexer::lex(text, &mut buffer, &mut literals, Cut::All);
    lexed.sure.then(|| (literals.to_vec(), lexed.params))
}
