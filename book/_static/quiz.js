/* Quizzes: the numbered list of an admonition of class "quiz" becomes radio buttons; its folded answer stays. */
for (const [number, quiz] of document.querySelectorAll(".admonition.quiz").entries()) {
  const list = quiz.querySelector("ol");
  const answer = quiz.querySelector("details");
  const right = parseInt(answer?.querySelector("strong")?.textContent, 10);
  if (!list || !right) continue;

  const question = list.previousElementSibling;
  question.id ||= `quiz-${number}`;
  const choices = document.createElement("fieldset");
  choices.setAttribute("aria-labelledby", question.id);
  [...list.children].forEach((item, place) => {
    const label = document.createElement("label");
    const radio = Object.assign(document.createElement("input"), { type: "radio", name: `quiz-${number}`, value: place + 1 });
    const text = document.createElement("span");
    for (const child of [...item.childNodes]) text.append(...(child.tagName === "P" ? child.childNodes : [child]));
    label.append(radio, text);
    choices.append(label);
  });
  const check = Object.assign(document.createElement("button"), { type: "button", textContent: "Check", disabled: true });
  const says = document.createElement("p");
  says.className = "quiz-says";
  says.setAttribute("role", "status");
  list.replaceWith(choices, check, says);

  choices.addEventListener("change", () => {
    check.disabled = false;
    says.textContent = "";
  });
  check.addEventListener("click", () => {
    const correct = +choices.querySelector(":checked").value === right;
    says.textContent = correct ? "Right." : "Not this one. Try again, or open the answer.";
    quiz.dataset.result = correct ? "right" : "wrong";
    if (correct) answer.open = true;
  });
}
