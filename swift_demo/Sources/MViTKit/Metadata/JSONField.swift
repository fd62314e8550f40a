import Foundation

/// Any JSON value.
enum JSONValue: Hashable, Sendable, Decodable {
  case null
  case bool(Bool)
  case number(Double)
  case string(String)
  case array([JSONValue])
  case object([String: JSONValue])

  init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    if container.decodeNil() {
      self = .null
    } else if let value = try? container.decode(Bool.self) {
      self = .bool(value)
    } else if let value = try? container.decode(Double.self) {
      self = .number(value)
    } else if let value = try? container.decode(String.self) {
      self = .string(value)
    } else if let value = try? container.decode([JSONValue].self) {
      self = .array(value)
    } else {
      self = .object(try container.decode([String: JSONValue].self))
    }
  }
}

/// A value within the JSON of a metadata key that knows where it stands, for errors that say so.
struct JSONField {
  let key: String
  let path: String
  let value: JSONValue

  private init(key: String, path: String, value: JSONValue) {
    self.key = key
    self.path = path
    self.value = value
  }

  /// Parses the text under a key.
  init(key: String, text: String) throws(MetadataError) {
    guard let value = try? JSONDecoder().decode(JSONValue.self, from: Data(text.utf8)) else {
      throw MetadataError(key: key, problem: "is no JSON")
    }
    self.init(key: key, path: "", value: value)
  }

  /// Whether the value is null.
  var isNull: Bool { value == .null }

  /// The error that this field is not what it must be.
  func mustBe(_ expected: String) -> MetadataError {
    let place = path.isEmpty ? "the value" : path
    return MetadataError(key: key, problem: "\(place) must be \(expected)")
  }

  /// The members of an object, by name.
  func members() throws(MetadataError) -> [String: JSONField] {
    guard case .object(let members) = value else { throw mustBe("an object") }
    return Dictionary(
      uniqueKeysWithValues: members.map { name, value in
        (name, JSONField(key: key, path: path.isEmpty ? name : "\(path).\(name)", value: value))
      })
  }

  /// A member of an object, null if it is not there.
  func member(_ name: String) throws(MetadataError) -> JSONField {
    try members()[name]
      ?? JSONField(key: key, path: path.isEmpty ? name : "\(path).\(name)", value: .null)
  }

  /// The elements of an array.
  func elements() throws(MetadataError) -> [JSONField] {
    guard case .array(let elements) = value else { throw mustBe("an array") }
    return elements.enumerated().map { index, value in
      JSONField(key: key, path: "\(path)[\(index)]", value: value)
    }
  }

  /// A text.
  func text() throws(MetadataError) -> String {
    guard case .string(let text) = value else { throw mustBe("a text") }
    return text
  }

  /// A number.
  func number() throws(MetadataError) -> Double {
    guard case .number(let number) = value, number.isFinite else { throw mustBe("a number") }
    return number
  }

  /// A whole number within limits.
  func integer(in range: ClosedRange<Int>) throws(MetadataError) -> Int {
    guard case .number(let number) = value, let integer = Int(exactly: number),
      range.contains(integer)
    else {
      throw mustBe("a whole number from \(range.lowerBound) to \(range.upperBound)")
    }
    return integer
  }

  /// As many numbers as asked for.
  func numbers(count: Int) throws(MetadataError) -> [Double] {
    guard case .array(let elements) = value, elements.count == count else {
      throw mustBe("\(count) numbers")
    }
    var numbers: [Double] = []
    for element in try self.elements() { numbers.append(try element.number()) }
    return numbers
  }

  /// One of the cases of an enumeration.
  func oneOf<Choice: RawRepresentable & CaseIterable>(
    _ type: Choice.Type
  ) throws(MetadataError) -> Choice where Choice.RawValue == String {
    guard case .string(let text) = value, let choice = Choice(rawValue: text) else {
      let names = Choice.allCases.map { $0.rawValue }.joined(separator: ", ")
      throw mustBe("one of \(names)")
    }
    return choice
  }
}
