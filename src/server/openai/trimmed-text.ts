/** A stream of text without the white space around it, which models like to begin and end with. */

export class TrimmedText {
  private begun = false;
  private held = "";

  /** The text that surely belongs to the answer; white space is held back until something follows it. */
  push(text: string): string {
    const all = this.held + (this.begun ? text : text.trimStart());
    const sure = all.trimEnd();
    this.begun ||= sure !== "";
    this.held = this.begun ? all.slice(sure.length) : "";
    return sure;
  }
}
