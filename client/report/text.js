// Texts from a model made visible. Nothing here needs a document, so that the command line runs it too.
'use strict';

const epoText = (() => {
  // What steers a terminal or a line's direction, or hides from the eye.
  const HIDDEN = /[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Cs}\p{Zl}\p{Zp}]/u;

  // As the command line shows it.
  function name(character) {
    const code = character.codePointAt(0);
    const short = {9: '\\t', 10: '\\n', 13: '\\r'}[code];
    return short || (code < 0x100 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u{${code.toString(16)}}`);
  }

  // The text in runs {text, hidden}: a hidden run is the name of one character that is not to be seen or not to act.
  function runs(text) {
    const out = [];
    for (const character of text) {
      const hidden = HIDDEN.test(character);
      const last = out[out.length - 1];
      if (last && !last.hidden && !hidden) last.text += character;
      else out.push({text: hidden ? name(character) : character, hidden});
    }
    return out;
  }

  // The same as one string for a figure, isolated from the direction of what stands beside it, of at most `most` characters.
  function label(text, most) {
    const all = [...runs(text).map(run => run.text).join('')];
    const cut = all.length > most ? all.slice(0, most - 1).join('').trimEnd() + '\u2026' : all.join('');
    return cut.trim() === '' ? cut : `\u2068${cut}\u2069`;
  }

  // A score as people read it: as many digits as tell values of a prompt's size apart.
  function number(value) {
    if (value === null || value === undefined) return '\u2013';
    const size = Math.abs(value);
    const digits = size !== 0 && (size >= 1e6 || size < 1e-3) ? value.toExponential(2) : value.toFixed(size >= 100 ? 1 : size >= 10 ? 2 : 3);
    return digits.replace('-', '\u2212');
  }

  return {runs, label, number};
})();
