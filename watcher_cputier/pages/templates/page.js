"use strict";
(function () {
  // A square of the second map tells what its twin in the first one does.
  document.querySelectorAll(".panel").forEach(function (panel) {
    var maps = panel.querySelectorAll(".squares");
    if (maps.length < 2) { return; }
    maps[1].addEventListener("mouseover", function (event) {
      var square = event.target;
      if (square.tagName !== "LI" || square.title) { return; }
      var place = Array.prototype.indexOf.call(maps[1].children, square);
      square.title = maps[0].children[place].title;
    });
  });

  // Find a host.
  var find = document.getElementById("find");
  if (find) {
    find.closest("p").hidden = false;
    var maps = Array.from(document.querySelectorAll(".squares"));
    var names = Array.from(maps[0].children).map(function (square) {
      return square.title.slice(0, square.title.indexOf(": "));
    });
    find.addEventListener("input", function () {
      var wanted = find.value.trim().toLowerCase();
      var hits = 0;
      names.forEach(function (name, place) {
        var hit = wanted !== "" && name.toLowerCase().includes(wanted);
        hits += hit;
        maps.forEach(function (map) {
          map.children[place].classList.toggle("hit", hit);
        });
      });
      maps.forEach(function (map) {
        map.classList.toggle("dim", wanted !== "");
      });
      document.querySelectorAll("tr[data-host]").forEach(function (row) {
        row.hidden = wanted !== "" &&
          !row.dataset.host.toLowerCase().includes(wanted);
      });
      document.getElementById("hits").value =
        wanted === "" ? "" : hits + (hits === 1 ? " host" : " hosts");
    });
  }

  // What is folded away belongs on paper only where it is unfolded.
  // Sort a long table by a column.
  document.querySelectorAll("table.list, table#all").forEach(function (table) {
    var body = table.tBodies[0];
    if (body.rows.length < 10) { return; }
    var heads = table.tHead.rows[table.tHead.rows.length - 1].cells;
    Array.from(heads).forEach(function (head) {
      var button = document.createElement("button");
      button.type = "button";
      while (head.firstChild) { button.append(head.firstChild); }
      head.append(button);
      button.addEventListener("click", function () {
        var down = head.getAttribute("aria-sort") === "ascending";
        Array.from(heads).forEach(function (h) {
          h.removeAttribute("aria-sort");
        });
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        var column = place(table, head);
        var rows = Array.from(body.rows);
        rows.sort(function (a, b) {
          var x = a.cells[column].textContent.trim();
          var y = b.cells[column].textContent.trim();
          return (down ? -1 : 1) * x.localeCompare(y, "en", {numeric: true});
        });
        body.append.apply(body, rows);
      });
    });
  });

  function place(table, head) {
    // In a head of two rows the first column is the host's.
    return head.cellIndex + (table.tHead.rows.length > 1 ? 1 : 0);
  }
})();
