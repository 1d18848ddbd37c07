// `tandem explain`: the table of fields in words.
#include <algorithm>

#include "spec/fields.h"
#include "spec/nearest.h"
#include "spec/spec.h"

namespace tandem {
namespace {

constexpr size_t kWidth = 92;

std::string Wrap(std::string_view text, const std::string& indent) {
  std::string out;
  std::string line;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(' ', begin), text.size());
    const std::string word(text.substr(begin, end - begin));
    if (!line.empty() && indent.size() + line.size() + 1 + word.size() > kWidth) {
      out += indent + line + "\n";
      line.clear();
    }
    line += (line.empty() ? "" : " ") + word;
    begin = end + 1;
  }
  return out + (line.empty() ? "" : indent + line + "\n");
}

bool IsChild(std::string_view path, std::string_view parent) {
  return parent.empty() ? path.find('.') == std::string_view::npos
                        : path.starts_with(std::string(parent) + ".") &&
                              path.find('.', parent.size() + 1) == std::string_view::npos;
}

std::string Facts(const Field& field) {
  std::string facts = TypeWords(field);
  if (const auto allowed = AllowedWords(field); !allowed.empty()) facts += ", " + allowed;
  if (!field.unit.empty()) facts += " (" + std::string(field.unit) + ")";
  return facts;
}

// The tree below `parent`, one line per field: name, default.
void AppendTree(std::string_view parent, size_t depth, std::string& text) {
  for (const auto& field : Fields()) {
    if (!IsChild(field.path, parent)) continue;
    const std::string name(field.path.substr(parent.empty() ? 0 : parent.size() + 1));
    std::string line = std::string(2 * depth, ' ') + name + ":";
    if (field.type != FieldType::kGroup) {
      line.resize(std::max<size_t>(line.size() + 1, 26), ' ');
      line += field.required ? "required" : DefaultWords(field);
    }
    text += line + "\n";
    AppendTree(field.path, depth + 1, text);
  }
}

std::string OneField(const Field& field) {
  std::string text = std::string(field.path) + "\n  " + Facts(field) + "\n";
  if (field.type != FieldType::kGroup) {
    text += field.required ? "  required\n" : Wrap("default: " + DefaultWords(field), "  ");
  }
  text += "\n" + Wrap(field.words, "  ");
  if (!field.later.empty()) {
    std::string names;
    for (const auto name : field.later) names += (names.empty() ? "" : ", ") + std::string(name);
    text += "\n  Not available in this version: " + names + "\n";
  }
  if (field.not_built) text += "\n  Not available in this version.\n";
  return text;
}

std::string Group(const Field& group) {
  std::string text = std::string(group.path) + "\n" + Wrap(group.words, "  ") + "\n";
  for (const auto& field : Fields()) {
    if (!IsChild(field.path, group.path)) continue;
    const std::string name(field.path.substr(group.path.size() + 1));
    text += "  " + name + "  (" + Facts(field) + ")\n" + Wrap(field.words, "      ");
    if (field.type == FieldType::kGroup) continue;
    text += field.required ? "      required\n" : Wrap("default: " + DefaultWords(field), "      ");
  }
  return text;
}

}  // namespace

Result<std::string> Explain(const std::string& path) {
  if (path.empty()) {
    std::string text =
        "A job file. Each field with its default; `tandem explain FIELD` says more.\n\n";
    AppendTree("", 0, text);
    return text;
  }
  if (const Field* field = FindField(path))
    return field->type == FieldType::kGroup ? Group(*field) : OneField(*field);
  if (IsLaterField(path)) return NotFound(path + " is not available in this version");
  std::vector<std::string> paths;
  for (const auto& field : Fields()) {
    paths.emplace_back(field.path);
    // `tandem explain span` finds attention.linear.span.
    if (field.path.ends_with("." + path))
      return NotFound(path + " is not a field; did you mean " + std::string(field.path) + "?");
  }
  const std::string near = NearestName(path, paths);
  return NotFound(path + " is not a field; " +
                  (near.empty() ? "`tandem explain` lists them" : "did you mean " + near + "?"));
}

}  // namespace tandem
