() => {
  // Gradio names the button that removes a choice by its number in the list: name it by the choice.
  const name = () => {
    for (const button of document.querySelectorAll(".token .token-remove")) {
      const label = `Remove ${button.closest(".token").innerText.trim()}`;
      if (button.getAttribute("aria-label") !== label) button.setAttribute("aria-label", label);
    }
  };
  new MutationObserver(name).observe(document.body, { childList: true, subtree: true, characterData: true });
  name();
}
