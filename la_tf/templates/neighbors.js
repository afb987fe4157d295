// Lists the nearest neighbours of the chosen point in the element `target`. Names reach the page as text, never as HTML.
if (source.selected.indices.length > 1) {
  source.selected.indices = source.selected.indices.slice(0, 1)  // of points on top of each other one; calls this again
  return
}
const place = document.getElementById(target)
const data = source.data
const [chosen] = source.selected.indices

function card(point, below) {
  const card = document.createElement("figure")
  if (data.picture[point]) {
    const picture = document.createElement("img")
    picture.src = data.picture[point]
    picture.alt = data.label[point]
    card.append(picture)
  }
  const caption = document.createElement("figcaption")
  for (const [text, kind] of [[data.label[point], "label"], [below, "similarity"], [data.name[point], "name"]]) {
    const line = document.createElement("span")
    line.className = kind
    line.textContent = kind === "name" ? text.split("/").pop() : text
    line.title = text
    caption.append(line)
  }
  card.append(caption)
  return card
}

place.replaceChildren()
if (chosen !== undefined) {
  const nearest = data[`nearest${number}`], similarity = data[`similarity${number}`]
  const width = nearest.shape[1]
  place.append(card(chosen, "chosen"))
  for (let i = chosen * width; i < (chosen + 1) * width; i++) {
    if (nearest[i] >= 0) {
      place.append(card(nearest[i], similarity[i].toFixed(3)))
    }
  }
}
