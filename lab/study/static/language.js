// The switch between the languages: the same page, below ko/ or not.
document.addEventListener("DOMContentLoaded", function () {
  "use strict";
  const html = document.documentElement;
  const root = new URL(html.dataset.content_root, location.href).href;
  const page = location.href.slice(root.length);
  const korean = html.lang === "ko";
  const link = document.createElement("a");
  link.className = "language";
  link.href = root + (korean ? "../" : "ko/") + page;
  link.lang = korean ? "en" : "ko";
  link.textContent = korean ? "English" : "한국어";
  document.querySelector(".sidebar-brand").after(link);
  const bar = link.cloneNode(true);
  document.querySelector(".mobile-header .header-center").after(bar);
});
