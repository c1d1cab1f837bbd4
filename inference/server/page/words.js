// Marks the word that is being said in the text.

export class WordMarker {
  #place;
  // The server counts characters, not the units of JavaScript's strings.
  #characters;
  #words = [];
  #marked = null;

  constructor(place, text) {
    this.#place = place;
    this.#characters = [...text];
    place.textContent = text;
  }

  add(words) {
    this.#words.push(...words);
  }

  // Marks the word at a second of the speech; between words the last one stays.
  show(seconds) {
    let word = null;
    for (const next of this.#words) {
      if (next.start_seconds > seconds) break;
      word = next;
    }
    if (word === this.#marked) return;
    this.#marked = word;
    if (!word) {
      this.#place.textContent = this.#part(0);
      return;
    }
    const mark = document.createElement("mark");
    mark.textContent = this.#part(word.text_start, word.text_end);
    this.#place.replaceChildren(this.#part(0, word.text_start), mark, this.#part(word.text_end));
  }

  // Takes the mark away.
  clear() {
    this.show(-1);
  }

  // Calls `show` with the seconds that `position` gives, until `isOver`.
  follow(position, isOver) {
    const step = () => {
      if (isOver()) {
        this.clear();
        return;
      }
      this.show(position());
      requestAnimationFrame(step);
    };
    step();
  }

  #part(start, end) {
    return this.#characters.slice(start, end).join("");
  }
}
