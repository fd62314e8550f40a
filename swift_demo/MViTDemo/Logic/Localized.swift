import Foundation

/// The words of the app in the user's language, out of its String Catalog.
///
/// - Parameters:
///   - key: the words in English, with `%@` for every value; the catalog has an entry for each.
///   - values: what takes the places of `%@` in order, or of `%1$@` where a language has another.
func localized(_ key: String, _ values: String...) -> String {
  filled(NSLocalizedString(key, comment: ""), with: values)
}

/// Puts values into their places; Foundation's own formatting takes no Swift strings on Linux.
func filled(_ pattern: String, with values: [String]) -> String {
  var text = ""
  var rest = Substring(pattern)
  var next = 0
  while let percent = rest.firstIndex(of: "%") {
    text += rest[..<percent]
    rest = rest[rest.index(after: percent)...]
    let digits = rest.prefix { $0.isNumber }
    if rest.hasPrefix("@") {
      text += next < values.count ? values[next] : ""
      next += 1
      rest = rest.dropFirst()
    } else if let position = Int(digits), rest.dropFirst(digits.count).hasPrefix("$@") {
      text += values.indices.contains(position - 1) ? values[position - 1] : ""
      rest = rest.dropFirst(digits.count + 2)
    } else {
      // `%%` is one percent sign, and so is a lone one.
      text += "%"
      if rest.hasPrefix("%") { rest = rest.dropFirst() }
    }
  }
  return text + rest
}
