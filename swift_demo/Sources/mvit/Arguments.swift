import MViTKit

/// Why a command cannot be carried out; the message is for whoever typed it.
struct UsageError: Error, CustomStringConvertible {
  let description: String
}

/// The words after a command, taken apart into options and the rest.
struct Arguments {
  private(set) var positional: [String] = []
  private var options: [String: String] = [:]

  /// Takes words apart.
  ///
  /// - Parameters:
  ///   - words: what was typed.
  ///   - known: names of the options, each of which takes a value.
  init(_ words: ArraySlice<String>, known: Set<String>) throws {
    var words = words
    while let word = words.popFirst() {
      guard word.hasPrefix("-"), word != "-" else {
        positional.append(word)
        continue
      }
      guard known.contains(word) else { throw UsageError(description: "unknown option \(word)") }
      guard let value = words.popFirst() else {
        throw UsageError(description: "\(word) needs a value")
      }
      options[word] = value
    }
  }

  /// The text of an option, if it was given.
  func text(_ name: String) -> String? { options[name] }

  /// The number of an option, if it was given.
  func integer(_ name: String, in range: ClosedRange<Int>) throws -> Int? {
    try options[name].map { text in
      guard let value = Int(text), range.contains(value) else {
        throw UsageError(
          description: "\(name) is \(text); it must be from \(range.lowerBound) to "
            + "\(range.upperBound)")
      }
      return value
    }
  }

  /// The choice of an option, if it was given.
  func choice<Choice: RawRepresentable & CaseIterable>(
    _ name: String, _ type: Choice.Type
  ) throws -> Choice? where Choice.RawValue == String {
    try options[name].map { text in
      guard let choice = Choice(rawValue: text) else {
        let names = Choice.allCases.map { $0.rawValue }.joined(separator: ", ")
        throw UsageError(description: "\(name) is \(text); it must be one of \(names)")
      }
      return choice
    }
  }

  /// The size of an option, `256` or `640x480`, if it was given.
  func size(_ name: String) throws -> PixelSize? {
    try options[name].map { text in
      let edges = text.split(separator: "x", omittingEmptySubsequences: false).map { Int($0) }
      guard (1...2).contains(edges.count), let width = edges[0],
        let height = edges[edges.count - 1], (1...16_384).contains(width),
        (1...16_384).contains(height)
      else {
        throw UsageError(
          description: "\(name) is \(text); it must be a length such as 256, or WIDTHxHEIGHT")
      }
      return PixelSize(width: width, height: height)
    }
  }

  /// The words that are not options, as many as a command takes.
  func require(_ names: String...) throws -> [String] {
    guard positional.count == names.count else {
      let wanted = names.joined(separator: " ")
      throw UsageError(
        description: positional.count < names.count
          ? "\(names[positional.count]) is missing; the command takes \(wanted)"
          : "\(positional[names.count]) is too much; the command takes \(wanted)")
    }
    return positional
  }
}
