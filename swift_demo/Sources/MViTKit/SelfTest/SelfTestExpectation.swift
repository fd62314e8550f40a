import Foundation

/// What the Python side answered for one picture, shipped beside a model to check a device with.
///
/// The file is `<model>.selftest.json`; the picture lies beside it and is lossless, so that every
/// decoder gives the same pixels.
public struct SelfTestExpectation: Hashable, Sendable, Decodable {
  /// Version of the file's format that this code reads.
  public static let version = 1

  /// A class and its probability.
  public struct Score: Hashable, Sendable, Decodable {
    /// Name of the class.
    public let label: String
    /// From 0 to 1.
    public let probability: Double

    /// Creates a score.
    public init(label: String, probability: Double) {
      self.label = label
      self.probability = probability
    }
  }

  /// A class map in runs: class, length, class, length, row by row.
  public struct Map: Hashable, Sendable, Decodable {
    /// Cells in a row.
    public let width: Int
    /// Rows.
    public let height: Int
    /// Classes and lengths by turns.
    public let runs: [Int]

    /// The classes row by row; `nil` where the runs do not fill the map.
    public var classes: [Int32]? {
      guard width > 0, height > 0, runs.count.isMultiple(of: 2) else { return nil }
      var classes: [Int32] = []
      classes.reserveCapacity(width * height)
      for index in stride(from: 0, to: runs.count, by: 2) {
        let (value, length) = (runs[index], runs[index + 1])
        let isRoom = length > 0 && length <= width * height - classes.count
        guard isRoom, let value = Int32(exactly: value) else { return nil }
        classes.append(contentsOf: repeatElement(value, count: length))
      }
      return classes.count == width * height ? classes : nil
    }
  }

  /// Name of the model, without its suffix.
  public let model: String
  /// Fingerprint of the program that answered, as in the package's metadata.
  public let programSHA256: String
  /// Function that answered.
  public let function: String
  /// File name of the picture.
  public let image: String
  /// Fingerprint of the fitted picture: red, green, blue, row by row.
  public let inputSHA256: String
  /// The likeliest classes, of a classifier.
  public let top: [Score]?
  /// The class map, of a segmenter.
  public let map: Map?
  /// Largest difference of a probability that still agrees.
  public let tolerance: Double
  /// Smallest share of equal cells that still agrees.
  public let minimumAgreement: Double

  private enum CodingKeys: String, CodingKey {
    case version, model, function, image, top, map, tolerance
    case programSHA256 = "program_sha256"
    case inputSHA256 = "input_sha256"
    case minimumAgreement = "minimum_agreement"
  }

  /// Reads and checks the file's content.
  public init(from decoder: any Decoder) throws {
    let values = try decoder.container(keyedBy: CodingKeys.self)
    func refuse(_ key: CodingKeys, _ problem: String) -> DecodingError {
      .dataCorruptedError(forKey: key, in: values, debugDescription: problem)
    }
    let version = try values.decode(Int.self, forKey: .version)
    guard version == Self.version else {
      throw refuse(.version, "version \(version) is not \(Self.version), the one that is read here")
    }
    model = try values.decode(String.self, forKey: .model)
    programSHA256 = try values.decode(String.self, forKey: .programSHA256)
    function = try values.decode(String.self, forKey: .function)
    image = try values.decode(String.self, forKey: .image)
    inputSHA256 = try values.decode(String.self, forKey: .inputSHA256)
    top = try values.decodeIfPresent([Score].self, forKey: .top)
    map = try values.decodeIfPresent(Map.self, forKey: .map)
    tolerance = try values.decode(Double.self, forKey: .tolerance)
    minimumAgreement = try values.decode(Double.self, forKey: .minimumAgreement)
    guard (top == nil) != (map == nil) else {
      throw refuse(.top, "exactly one of top and map must be there")
    }
    if let top, top.isEmpty { throw refuse(.top, "no class is listed") }
    if let map, map.classes == nil { throw refuse(.map, "the runs do not fill the map") }
  }

  /// Reads `<model>.selftest.json`.
  ///
  /// - Throws: ``SelfTestError`` naming the file and what is wrong with it.
  public init(contentsOf url: URL) throws {
    do {
      self = try JSONDecoder().decode(Self.self, from: Data(contentsOf: url))
    } catch let error as DecodingError {
      throw SelfTestError(file: url.lastPathComponent, problem: Self.sentence(for: error))
    } catch {
      throw SelfTestError(file: url.lastPathComponent, problem: "cannot be read")
    }
  }

  private static func sentence(for error: DecodingError) -> String {
    func path(_ context: DecodingError.Context) -> String {
      context.codingPath.map(\.stringValue).joined(separator: ".")
    }
    switch error {
    case .keyNotFound(let key, _): return "\(key.stringValue) is missing"
    case .typeMismatch(_, let context): return "\(path(context)) has the wrong type"
    case .valueNotFound(_, let context): return "\(path(context)) is null"
    case .dataCorrupted(let context):
      return context.codingPath.isEmpty
        ? "is no JSON" : "\(path(context)): \(context.debugDescription)"
    @unknown default: return "is not understood"
    }
  }
}

/// A self-test file that cannot be used.
public struct SelfTestError: Error, Hashable, Sendable, CustomStringConvertible, LocalizedError {
  /// Name of the file.
  public let file: String
  /// What is wrong with it.
  public let problem: String

  /// One line for the user.
  public var description: String { "\(file): \(problem)" }
  /// One line for the user.
  public var errorDescription: String? { description }

  /// Creates an error.
  public init(file: String, problem: String) {
    self.file = file
    self.problem = problem
  }
}

/// One thing that the self-test looked at.
public struct SelfTestCheck: Hashable, Sendable, Identifiable {
  /// What was looked at.
  public let name: String
  /// Whether the device agrees with the Python side.
  public let agrees: Bool
  /// The figures behind the verdict.
  public let detail: String

  /// The name, unique within a report.
  public var id: String { name }

  /// Creates a check.
  public init(name: String, agrees: Bool, detail: String) {
    self.name = name
    self.agrees = agrees
    self.detail = detail
  }
}

/// Whether this device answers like the Python side.
public struct SelfTestReport: Hashable, Sendable {
  /// Name of the model.
  public let model: String
  /// What was looked at, in order.
  public let checks: [SelfTestCheck]
  /// What is told beside the verdict, such as how near Vision's own resizing comes.
  public let notes: [SelfTestCheck]

  /// Whether everything agrees.
  public var agrees: Bool { checks.allSatisfy(\.agrees) }

  /// The verdict in a sentence.
  public var verdict: String {
    if agrees { return "This device agrees with the Python side." }
    let failed = checks.filter { !$0.agrees }.map { $0.name.lowercased() }
    return "This device disagrees with the Python side: \(failed.joined(separator: ", "))."
  }

  /// Creates a report.
  public init(model: String, checks: [SelfTestCheck], notes: [SelfTestCheck] = []) {
    self.model = model
    self.checks = checks
    self.notes = notes
  }
}

extension SelfTestExpectation {
  /// Checks that the model at hand is the one that answered in Python.
  public func check(programSHA256 found: String?) -> SelfTestCheck {
    let same = found == programSHA256
    let detail =
      same
      ? "the package that Python ran"
      : "another package than Python ran; make the demo models again"
    return SelfTestCheck(name: "Package", agrees: same, detail: detail)
  }

  /// Checks the pixels that go into the model, byte for byte.
  public func check(input: PixelImage) -> SelfTestCheck {
    let same = ContentDigest.hex(of: input.rgbBytes) == inputSHA256
    let size = "\(input.size.width) × \(input.size.height) pixels"
    return SelfTestCheck(
      name: "Preprocessing", agrees: same,
      detail: same ? "\(size), byte for byte the same" : "\(size), not the same bytes")
  }

  /// Checks a classifier's probabilities.
  ///
  /// - Parameters:
  ///   - scores: every class with its probability, the likeliest first.
  ///   - name: what to call the check.
  public func check(scores: [ClassScore], name: String = "Answer") -> SelfTestCheck {
    guard let top, let first = top.first else {
      return SelfTestCheck(name: name, agrees: false, detail: "Python answered with a class map")
    }
    let found = Dictionary(scores.map { ($0.label, $0.score) }, uniquingKeysWith: { one, _ in one })
    let missing = top.first { found[$0.label] == nil }
    if let missing {
      return SelfTestCheck(name: name, agrees: false, detail: "no class is called \(missing.label)")
    }
    let difference = top.map { abs($0.probability - (found[$0.label] ?? .infinity)) }.max() ?? 0
    let agrees = scores.first?.label == first.label && difference <= tolerance
    return SelfTestCheck(
      name: name, agrees: agrees,
      detail: "\(scores.first?.label ?? "nothing") where Python says \(first.label); "
        + "probabilities differ by up to \(FigureFormat.fixed(difference, digits: 4)), "
        + "\(FigureFormat.fixed(tolerance, digits: 4)) allowed")
  }

  /// Checks a segmenter's class map.
  ///
  /// - Parameters:
  ///   - found: the map that this device answers.
  ///   - name: what to call the check.
  public func check(map found: ClassMap, name: String = "Answer") -> SelfTestCheck {
    guard let map, let expected = map.classes else {
      return SelfTestCheck(name: name, agrees: false, detail: "Python answered with classes")
    }
    guard found.width == map.width, found.height == map.height else {
      return SelfTestCheck(
        name: name, agrees: false,
        detail: "a map of \(found.width) × \(found.height) cells; "
          + "Python's has \(map.width) × \(map.height)")
    }
    let equal = zip(found.classes, expected).count { $0 == $1 }
    let share = Double(equal) / Double(expected.count)
    return SelfTestCheck(
      name: name, agrees: share >= minimumAgreement,
      detail: "\(FigureFormat.fixed(100 * share, digits: 2)) % of the cells are the same, "
        + "\(FigureFormat.fixed(100 * minimumAgreement, digits: 0)) % needed")
  }
}
