/// The class names of a classifier, out of its ML Program.
///
/// A package that answers probabilities by name keeps the names in its `classify` operation alone,
/// where Core ML finds its `classLabels`. Field numbers are those of Core ML's Model.proto and
/// MIL.proto.
enum ClassifierLabels {
  /// Reads the names; `nil` for a program without a `classify` operation.
  ///
  /// - Parameter program: the message `MILSpec.Program`.
  static func read(program: ArraySlice<UInt8>) -> [String]? {
    for function in messages(2, in: program).compactMap(mapValue) {
      for block in messages(3, in: function).compactMap(mapValue) {
        for operation in messages(3, in: block) {
          if let labels = read(operation: operation) { return labels }
        }
      }
    }
    return nil
  }

  private static func read(operation: ArraySlice<UInt8>) -> [String]? {
    guard messages(1, in: operation).first.map(text) == "classify" else { return nil }
    for input in messages(2, in: operation) {
      guard messages(1, in: input).first.map(text) == "classes", let argument = mapValue(input),
        let binding = messages(1, in: argument).first, let value = messages(2, in: binding).first
      else { continue }
      return strings(in: value)
    }
    return nil
  }

  /// The texts of a value: of a list of texts, or of a tensor of them.
  private static func strings(in value: ArraySlice<UInt8>) -> [String] {
    guard let immediate = messages(3, in: value).first else { return [] }
    if let list = messages(3, in: immediate).first {
      return messages(1, in: list).flatMap(strings)
    }
    guard let tensor = messages(1, in: immediate).first,
      let repeated = messages(4, in: tensor).first
    else { return [] }
    return messages(1, in: repeated).map(text)
  }

  private static func messages(_ number: Int, in bytes: ArraySlice<UInt8>) -> [ArraySlice<UInt8>] {
    ProtobufReader(bytes).filter { $0.number == number }.map(\.bytes)
  }

  private static func mapValue(_ entry: ArraySlice<UInt8>) -> ArraySlice<UInt8>? {
    messages(2, in: entry).first
  }

  private static func text(_ bytes: ArraySlice<UInt8>) -> String {
    String(decoding: bytes, as: UTF8.self)
  }
}
