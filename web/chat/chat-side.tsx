/** The list of chats at the side. */
export function ChatSide() {
  return null;
}
