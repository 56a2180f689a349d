// Gradio names the button that removes a choice by its number in the list: name it by the choice.
new MutationObserver(() => {
  for (const button of document.querySelectorAll(".token .token-remove")) {
    const label = `Remove ${button.closest(".token").innerText.trim()}`;
    if (button.getAttribute("aria-label") !== label) button.setAttribute("aria-label", label);
  }
}).observe(document, { childList: true, subtree: true, characterData: true });
