/// What a screen has to say about the model it wants.
public enum LoadState: Hashable, Sendable {
  /// Nothing is wanted.
  case idle
  /// The package is being compiled for this device.
  case compiling(name: String)
  /// The compiled model is being loaded and warmed up.
  case loading(name: String)
  /// The model answers.
  case ready(name: String)
  /// The model cannot be used, and why.
  case failed(name: String, message: String)

  /// The model that this is about.
  public var name: String? {
    switch self {
    case .idle: nil
    case .compiling(let name), .loading(let name), .ready(let name), .failed(let name, _): name
    }
  }

  /// Whether there is something to wait for.
  public var isBusy: Bool {
    switch self {
    case .compiling, .loading: true
    case .idle, .ready, .failed: false
    }
  }
}

/// Names one request of ``LoadStateMachine``, so that late news of an earlier one is told apart.
public struct LoadTicket: Hashable, Sendable {
  let number: Int
}

/// The steps from a wanted model to one that answers.
///
/// A request replaces the one before it, whatever its state; what is reported with the older
/// ticket is ignored from then on.
public struct LoadStateMachine: Hashable, Sendable {
  /// What to show.
  public private(set) var state = LoadState.idle
  private var current = LoadTicket(number: 0)

  /// A machine that wants nothing yet.
  public init() {}

  /// Wants a model.
  ///
  /// - Parameters:
  ///   - name: of the model.
  ///   - needsCompiling: whether there is no compiled form of it yet.
  /// - Returns: the ticket to report progress with.
  public mutating func request(_ name: String, needsCompiling: Bool) -> LoadTicket {
    current = LoadTicket(number: current.number + 1)
    state = needsCompiling ? .compiling(name: name) : .loading(name: name)
    return current
  }

  /// Reports that the package is compiled.
  ///
  /// - Returns: `false`, with nothing changed, if that is no longer or was never awaited.
  @discardableResult
  public mutating func compiled(_ ticket: LoadTicket) -> Bool {
    guard ticket == current, case .compiling(let name) = state else { return false }
    state = .loading(name: name)
    return true
  }

  /// Reports that the model is loaded.
  ///
  /// - Returns: `false`, with nothing changed, if that is no longer or was never awaited.
  @discardableResult
  public mutating func loaded(_ ticket: LoadTicket) -> Bool {
    guard ticket == current, case .loading(let name) = state else { return false }
    state = .ready(name: name)
    return true
  }

  /// Reports that compiling or loading failed, or that the model turned out not to answer.
  ///
  /// - Returns: `false`, with nothing changed, if that is no longer or was never awaited.
  @discardableResult
  public mutating func failed(_ ticket: LoadTicket, message: String) -> Bool {
    switch state {
    case .compiling(let name), .loading(let name), .ready(let name):
      guard ticket == current else { return false }
      state = .failed(name: name, message: message)
      return true
    case .idle, .failed: return false
    }
  }

  /// Wants nothing any more.
  public mutating func unload() {
    current = LoadTicket(number: current.number + 1)
    state = .idle
  }
}
